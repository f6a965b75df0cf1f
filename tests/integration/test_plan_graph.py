"""An override changes only the dependent choices, for every rule of each domain.

The expected changes are computed in two independent ways: as a fixed point over the needs of rules,
and by deriving a new plan in which the user set the same value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch

from flambeau import TensorData, domain
from flambeau.errors import PlanError
from flambeau.plan import CORE_RULES, Plan, Rule

PLAIN = {
    "n_train": 20_000,
    "n_valid": 500,
    "n_test": 0,
    "split": "random (seed 0)",
    "inputs": {"input": {"shape": [8], "dtype": "float32"}},
    "in_memory": True,
    "memory_bytes": 1_000_000,
    "target_dtype": "int64",
    "target_shape": [],
    "target_distinct": 3,
    "target_min": 0,
    "target_max": 2,
    "target_binary": False,
    "class_names": ["a", "b", "c"],
    "class_counts": [15_000, 3_000, 2_000],
}
AMOUNTS = {
    **{key: value for key, value in PLAIN.items() if not key.startswith("class_")},
    "target_dtype": "float32",
    "target_distinct": 900,
    "target_mean": [3.0],
    "target_std": [2.0],
}

# Values for rules without an alternative, or whose alternative needs other data.
OTHERS: dict[str, Any] = {
    "architecture": "another",
    "task": "multi_label",
    "bn": "eval",
    "input_dtype": "float64",
    "num_threads": 7,
    "normalisation": "none",
    "presize": 99,
    "device": "cuda",
    "compile": "other",
}


def vision() -> tuple[Sequence[Rule], Mapping[str, Any]]:
    pytest.importorskip("flambeau_vision")
    from flambeau_vision import ImageData

    pictures = torch.randint(0, 255, (40, 3, 72, 72), dtype=torch.uint8)
    data = ImageData.from_arrays(pictures, torch.arange(40) % 2)
    # As if they were files on disk, so that every rule has something to decide.
    facts = {**data.facts(), "in_memory": False, "n_train": 3_000}
    return domain.rules_of(domain.get_domain("vision")), facts


def rules_and_facts(name: str) -> tuple[Sequence[Rule], Mapping[str, Any]]:
    if name == "vision":
        return vision()
    if name == "core":
        fixed = {rule.key: rule for rule in CORE_RULES}
        made = domain.rules_of(domain.get_domain("tensors"))
        architecture = next(rule for rule in made if rule.key == "architecture")
        return tuple({**fixed, "architecture": architecture}.values()), PLAIN
    facts = AMOUNTS if name == "tensors, amounts" else PLAIN
    return domain.rules_of(domain.get_domain("tensors")), facts


@pytest.fixture(autouse=True)
def free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The evidence of some rules is how much memory is free, which would change between plans."""
    for place in ("available_memory_bytes", "available_cache_bytes"):
        with suppress(ImportError):
            monkeypatch.setattr(f"flambeau_vision.rules.{place}", lambda *_: 2 * 10**9)


DOMAINS = ("core", "tensors", "tensors, amounts", "vision")


def closure(rules: Sequence[Rule], key: str) -> set[str]:
    """All that reads ``key``, directly or through others; the order of the rules does not count."""
    found = {key}
    while more := {r.key for r in rules if r.key not in found and found & set(r.needs)}:
        found |= more
    return found


def other_value(plan: Plan, key: str) -> Any:
    choice = plan[key]
    return OTHERS.get(key, choice.alternatives[0] if choice.alternatives else None)


def overridden(plan: Plan, key: str, value: Any) -> tuple[Plan | None, str]:
    try:
        return plan.override(key, value), ""
    except PlanError as refused:
        return None, str(refused)


@pytest.mark.parametrize("name", DOMAINS)
def test_an_override_changes_its_dependents_and_nothing_else(name: str) -> None:
    rules, facts = rules_and_facts(name)
    before = Plan.derive(rules, facts)
    tried = 0
    for key in before:
        value = other_value(before, key)
        after, refusal = overridden(before, key, value)
        if after is None:
            # Where nothing could be made of it, it is said; the message names key and way out.
            assert f"{key} is {value!r:.80}, but it must be" in refusal
            continue
        tried += 1
        assert after == Plan.derive(rules, facts, {key: value}), key
        may_change = closure(rules, key)
        for other in before:
            if other not in may_change:
                assert after[other] is before[other], f"{key} moved {other}"
        changed = {k for k in before if before[k].value != after[k].value}
        assert {change.key for change in before.diff(after)} == changed
        assert changed <= may_change
        assert after[key].source == "user" or value is None
        # And back again: nothing of the detour stays.
        again = after.override(key, before[key].value)
        assert {change.key for change in before.diff(again)} == set(), key
    assert tried >= 12


@pytest.mark.parametrize(
    ("name", "key", "value", "changed"),
    [
        ("tensors", "task", "regression", {"task", "targets", "loss", "metrics"}),
        ("tensors", "batch_size", 32, {"batch_size", "epochs"}),
        ("tensors", "accumulate", 4, {"accumulate", "epochs"}),
        ("tensors", "optimizer", "sgd", {"optimizer", "weight_decay", "lr"}),
        ("tensors", "loss", "balanced_cross_entropy", {"loss"}),
        ("tensors", "metrics", ["accuracy"], {"metrics"}),
        ("tensors", "lr", 0.5, {"lr"}),
        ("tensors", "trainable", "head", {"trainable"}),
        ("tensors", "num_threads", 7, {"num_threads"}),
        ("tensors, amounts", "normalisation", "none", {"normalisation", "targets"}),
        ("tensors, amounts", "targets", "as_is", {"targets"}),
        ("tensors, amounts", "loss", "huber", {"loss"}),
        ("vision", "batch_size", 8, {"batch_size"}),
        ("vision", "cache", "files", {"cache", "num_workers"}),
        ("vision", "channels", 1, {"channels"}),
        ("vision", "augmentation", None, {"augmentation"}),
    ],
)
def test_what_hangs_on_it_by_hand(name: str, key: str, value: Any, changed: set[str]) -> None:
    rules, facts = rules_and_facts(name)
    before = Plan.derive(rules, facts)
    diff = before.diff(before.override(key, value))
    assert {change.key for change in diff} == changed
    assert str(diff).count("→") == len(changed)


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("tensors", "split", "mine", r"Set valid=, test= or split= when you build the data"),
        ("tensors", "loss", "huber", r"one of cross_entropy, .* for the task 'classification'"),
        ("tensors", "metrics", ["rmse"], r"a list of accuracy, .* for the task 'classification'"),
        ("tensors", "metrics", "accuracy", r"a list of accuracy"),
        ("tensors", "targets", "standard", r"class labels cannot be scaled"),
        ("tensors", "weights", "DEFAULT", r"Pass a module that has them"),
        ("tensors", "head", {"dropout": 2}, r"from 0 to below 1"),
        ("tensors", "num_workers", 2, r"worker processes are for data read from files"),
        ("tensors", "data_device", "cuda", r"the model runs on cpu"),
        ("core", "head", {"dropout": 0.2}, r"Change it before"),
        ("tensors, amounts", "targets", "labels", r"one of 'as_is', 'standard'"),
        ("vision", "num_workers", 2, r"no file is read during training"),
    ],
)
def test_what_would_have_no_effect_is_refused(name: str, key: str, value: Any, words: str) -> None:
    rules, facts = rules_and_facts(name)
    user = {"cache": "memory"} if name == "vision" else {}
    with pytest.raises(PlanError, match=words):
        Plan.derive(rules, facts, {"device": "cpu", **user, key: value})
    with pytest.raises(PlanError, match=words):
        Plan.derive(rules, facts, {"device": "cpu", **user}).override(key, value)


def test_a_choice_of_the_user_that_no_longer_fits_is_named() -> None:
    rules, facts = rules_and_facts("tensors")
    plan = Plan.derive(rules, facts, {"metrics": ["accuracy"]})
    with pytest.raises(PlanError, match=r"metrics is \['accuracy'\].*for the task 'regression'"):
        plan.override("task", "regression")


def test_every_key_of_the_design_is_there() -> None:
    rules, _ = rules_and_facts("vision")
    wanted = {
        "task", "targets", "split", "image_size", "augmentation", "normalisation", "cache",
        "data_device", "architecture", "head", "loss", "metrics", "batch_size", "accumulate",
        "num_workers", "num_threads", "optimizer", "lr", "schedule", "epochs", "trainable", "bn",
        "precision", "compile", "memory_format", "device",
    }  # fmt: skip
    assert wanted <= {rule.key for rule in rules}
    data = TensorData.from_tensors(torch.randn(40, 3), torch.arange(40) % 2)
    plain = Plan.derive(domain.rules_of(domain.domain_of(data)), data.facts())
    assert wanted - {"image_size", "augmentation", "cache"} <= set(plain)
