"""Each core rule on made facts."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from flambeau import device
from flambeau.errors import PlanError
from flambeau.phases import BATCH_NORM_POLICIES
from flambeau.phases.schedule import SHAPES
from flambeau.plan import (
    CORE_RULES,
    Plan,
    combine,
    lr_rule,
    precision_rule,
    rules_machine,
    rules_training,
)
from flambeau.task import Classification, MultiLabel, Regression
from flambeau.training.optim.optimizer import OPTIMIZERS

FACTS = {
    "n_train": 1_000,
    "n_valid": 200,
    "n_test": 50,
    "split": "random (seed 0)",
    "target_dtype": "int64",
    "target_shape": [],
    "target_distinct": 7,
    "target_min": 0,
    "target_max": 6,
    "target_binary": False,
    "in_memory": True,
}


def plan(user: Mapping[str, Any] | None = None, **facts: Any) -> Plan:
    return Plan.derive(CORE_RULES, {**FACTS, **facts}, {"architecture": "net", **(user or {})})


def test_every_choice_has_a_reason_and_an_override() -> None:
    made = plan()
    for key in made:
        assert made[key].reason.endswith("."), key
        assert made[key].override, key
        assert made[key].source in ("rule", "user", "default")
        assert 0 <= made[key].confidence <= 1
        assert made[key].value not in made[key].alternatives, key


def test_an_architecture_must_come_from_somewhere() -> None:
    with pytest.raises(PlanError, match=r"No rule chooses an architecture.*Learner\(data, model\)"):
        Plan.derive(CORE_RULES, FACTS)


def test_core_needs_nothing_but_the_documented_facts() -> None:
    assert len(plan()) == len(CORE_RULES)


# ---------------------------------------------------------------- task


def target(dtype: str, shape: tuple[int, ...] = (), **facts: Any) -> dict[str, Any]:
    made = {"target_dtype": dtype, "target_shape": list(shape), "target_binary": False}
    return {**made, **{f"target_{name}": value for name, value in facts.items()}}


TASKS = [
    # facts, task, what the reason quotes, whether it is sure
    (target("int64", distinct=7, min=0, max=6), "classification", "7 distinct integers", True),
    (target("int64", distinct=2, min=-1, max=1), "classification", "2 distinct integers", True),
    (target("int64", distinct=300, min=0, max=400), "classification", "few rows each", False),
    (target("int64", distinct=990, min=0, max=5000), "regression", "few values repeat", False),
    (target("int64", distinct=90, min=-40, max=50), "regression", "The lowest is -40", True),
    (target("int64", (1,), distinct=7, min=0, max=6), "classification", "7 distinct", True),
    (target("int64"), "classification", "targets of type int64", True),
    (
        target("int64", (8, 8), distinct=4, min=0, max=3),
        "regression",
        "a target of shape (8, 8)",
        False,
    ),
    (target("float32", distinct=990, min=0.1, max=9.5), "regression", "990 distinct", True),
    (target("float64", (3,), distinct=990, min=0.1, max=9.5), "regression", "float64", True),
    (target("bfloat16"), "regression", "targets of type bfloat16", True),
    (target("float32", distinct=2, min=0, max=1), "regression", "convert them to int64", False),
    (target("float32", (5,), distinct=2, binary=True), "multi_label", "has 5 targets", True),
    (
        target("int64", (5,), distinct=2, binary=True),
        "multi_label",
        "5 targets that are 0 or 1",
        True,
    ),
    (target("int64", (1,), distinct=2, min=0, max=1, binary=True), "classification", "2 d", True),
    (target("bool", distinct=2), "classification", "can only be labels", True),
    (target("str", distinct=12), "classification", "12 distinct strs", True),
]


@pytest.mark.parametrize(("facts", "task", "words", "sure"), TASKS)
def test_task(facts: dict[str, Any], task: str, words: str, sure: bool) -> None:
    base = {name: value for name, value in FACTS.items() if not name.startswith("target_")}
    choice = Plan.derive(CORE_RULES, {**base, **facts}, {"architecture": "net"})["task"]
    assert choice.value == task
    assert words in choice.reason
    assert "1,000 rows" in choice.reason
    assert (choice.confidence >= 0.5) is sure
    assert set(choice.alternatives) == {"classification", "multi_label", "regression"} - {task}
    assert choice.evidence["target_dtype"] == facts["target_dtype"]


def test_the_reason_is_a_sentence_with_the_figure() -> None:
    made = plan(n_train=48_842)["task"]
    assert made.reason == (
        "The 48,842 rows have 7 distinct integers: each occurs often, as class labels do."
    )


def test_no_task_is_chosen_for_several_targets() -> None:
    facts = {name: value for name, value in FACTS.items() if not name.startswith("target_")}
    facts["targets"] = {"a": {}, "b": {}}
    with pytest.raises(PlanError, match=r"2 targets.*Learner\(data, task="):
        Plan.derive(CORE_RULES, facts, {"architecture": "net"})
    given = Plan.derive(CORE_RULES, facts, {"architecture": "net", "task": "my_task"})
    assert given["loss"].reason == "The task 'my_task' defines its loss."
    assert given.values["metrics"] == []


@pytest.mark.parametrize(
    ("task", "loss"),
    [
        ("classification", "cross_entropy"),
        ("multi_label", "binary_cross_entropy"),
        ("regression", "mse"),
    ],
)
def test_loss_follows_the_task(task: str, loss: str) -> None:
    assert plan({"task": task}).values["loss"] == loss
    assert plan().override("task", task).values["loss"] == loss


def test_metrics_exist_and_follow_the_task() -> None:
    known = {
        "classification": Classification.known_metrics(),
        "multi_label": MultiLabel.known_metrics(),
        "regression": Regression.known_metrics(),
    }
    for task, names in known.items():
        choice = plan({"task": task}, class_counts=[900, 100])["metrics"]
        assert choice.value
        assert set(choice.value) <= set(names)
        for alternative in choice.alternatives:
            assert set(alternative) <= set(names)


def test_metrics_see_through_a_large_class() -> None:
    assert plan(class_counts=[300, 350, 350]).values["metrics"] == ["accuracy"]
    assert plan(class_counts=[61, 39]).values["metrics"][1] == "balanced_accuracy"
    assert plan(class_counts=[]).values["metrics"] == ["accuracy"]
    skewed = plan(class_counts=[700, 200, 100])["metrics"]
    assert skewed.value == ["accuracy", "balanced_accuracy", "macro_f1"]
    assert "70% of the rows" in skewed.reason


def test_split_describes_the_split_of_the_data() -> None:
    choice = plan()["split"]
    assert choice.value == "random (seed 0)"
    assert "1,000 train, 200 valid, 50 test" in choice.reason


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("n", "in_memory", "size"),
    [
        (1, True, 4),
        (90, True, 4),
        (200, True, 8),
        (639, True, 16),
        (640, True, 32),
        (1_280, True, 64),
        (25_599, True, 64),
        (25_600, True, 256),
        (102_400, True, 512),
        (5_000_000, True, 1024),
        (5_000_000, False, 64),
    ],
)
def test_batch_size(n: int, in_memory: bool, size: int) -> None:
    choice = plan(n_train=n, in_memory=in_memory)["batch_size"]
    assert choice.value == size
    steps = -(-n // size)
    assert f"An epoch of the {n:,} train rows has {steps:,} steps" in choice.reason
    if n >= 80:
        assert n // size >= 20


def test_a_loader_of_the_user_keeps_its_batch_size() -> None:
    made = plan(loader_batch_size=100, in_memory=False)
    assert made.values["batch_size"] == 100
    assert made.values["num_workers"] == 0
    assert made["epochs"].evidence["steps_per_epoch"] == 10


def test_workers_are_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan().values["num_workers"] == 0
    for cores, workers in ((1, 1), (3, 3), (64, 4)):
        monkeypatch.setattr(rules_training, "usable_cores", lambda cores=cores: cores)
        choice = plan(in_memory=False)["num_workers"]
        assert choice.value == workers
        assert f"{cores} cores" in choice.reason


def test_optimizer_and_schedule_are_known_to_training() -> None:
    made = plan()
    for name in (made["optimizer"].value, *made["optimizer"].alternatives):
        assert name in OPTIMIZERS
    for name in (made["schedule"].value, *made["schedule"].alternatives):
        assert name in SHAPES
    for name in (made["bn"].value, *made["bn"].alternatives):
        assert name in BATCH_NORM_POLICIES


def test_weight_decay_and_rate_follow_the_optimizer() -> None:
    adam, sgd = plan(), plan({"optimizer": "sgd"})
    assert (adam.values["lr"], adam.values["weight_decay"]) == (1e-3, 1e-2)
    assert (sgd.values["lr"], sgd.values["weight_decay"]) == (5e-2, 5e-4)
    assert plan({"optimizer": "adagrad"}).values["weight_decay"] == 0.0
    assert "sgd usually needs 50 times that rate" in sgd["lr"].reason


def test_the_rate_is_the_architectures_documented_one() -> None:
    rules = combine(CORE_RULES, [lr_rule({"resnet18": 4e-3})])
    known = Plan.derive(rules, FACTS, {"architecture": "resnet18"})["lr"]
    assert known.value == 4e-3
    assert known.confidence > 0.5
    assert known.override == "learner.fit(lr=0.012)"
    unknown = Plan.derive(rules, FACTS, {"architecture": "MyNet"})["lr"]
    assert unknown.value == 1e-3
    assert unknown.confidence < 0.5
    assert "No learning rate was measured for MyNet" in unknown.reason


@pytest.mark.parametrize(
    ("n", "epochs"),
    [(100, 50), (1_280, 50), (3_200, 40), (20_000, 7), (1_000_000, 3)],
)
def test_epochs_give_steps_within_bounds(n: int, epochs: int) -> None:
    made = plan(n_train=n)
    assert made.values["epochs"] == epochs
    steps = -(-n // made.values["batch_size"])
    assert (
        f"{epochs} epochs of {steps:,} steps are {steps * epochs:,} steps" in made["epochs"].reason
    )


def test_epochs_follow_the_batch_size() -> None:
    before = plan(n_train=20_000)
    after = before.override("batch_size", 500)
    assert after.values["epochs"] == 50
    assert after["lr"] is before["lr"]


def test_weights() -> None:
    assert plan()["weights"].value is None
    assert "no pretrained weights" in plan()["weights"].reason
    assert "Your module" in plan(model_given=True)["weights"].reason


# ---------------------------------------------------------------- machine


def test_device_is_the_best_that_torch_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.device(plan().values["device"]) == device.best_device()
    monkeypatch.setattr(rules_machine, "best_device", lambda: torch.device("cpu"))
    assert plan()["device"].reason == "PyTorch found no accelerator."
    monkeypatch.setattr(rules_machine, "best_device", lambda: torch.device("mps"))
    assert plan().values["device"] == "mps"
    monkeypatch.setattr(rules_machine, "best_device", lambda: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda found: "a card")
    choice = plan()["device"]
    assert (choice.value, choice.reason) == ("cuda:1", "PyTorch found a GPU: a card.")
    assert choice.alternatives == ("cpu",)


@pytest.mark.parametrize(
    ("fast", "architecture", "value", "words"),
    [
        (True, "small_cnn", "bf16", "Measured for small_cnn: 1.9×"),
        (True, "net", "fp32", "no gain was measured for net"),
        (False, "small_cnn", "fp32", "not faster than fp32 on this cpu"),
    ],
)
def test_bf16_needs_a_fast_device_and_a_gain(
    fast: bool, architecture: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules_machine, "has_fast_bf16", lambda found: fast)
    rules = combine(CORE_RULES, [precision_rule({"small_cnn": "1.9×"})])
    user = {"architecture": architecture, "device": "cpu"}
    choice = Plan.derive(rules, FACTS, user)["precision"]
    assert choice.value == value
    assert words in choice.reason
    assert choice.evidence["fast_bf16"] is fast


@pytest.mark.parametrize(
    ("given", "dtype", "value", "words"),
    [
        ("Nets gained.", "float32", "bf16", "Nets gained."),
        (None, "float32", "fp32", "no gain was measured for Mine"),
        ("Nets gained.", "float64", "fp32", "weights are float64, so it computes in float64"),
    ],
)
def test_bf16_of_a_module_of_the_users_own(
    given: str | None, dtype: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules_machine, "has_fast_bf16", lambda found: True)
    rules = combine(CORE_RULES, [precision_rule({"Mine": "never"}, given=given)])
    facts = {**FACTS, "model_given": True, "model_dtype": dtype}
    choice = Plan.derive(rules, facts, {"architecture": "Mine", "device": "cpu"})["precision"]
    assert choice.value == value
    assert words in choice.reason


def test_compile_is_off_with_a_reason() -> None:
    choice = plan()["compile"]
    assert (choice.value, choice.source) == ("off", "default")
    assert "0.97–1.02×" in choice.reason
