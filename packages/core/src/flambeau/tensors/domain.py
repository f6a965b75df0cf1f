"""The domain of plain tensors: what ``TensorData.from_tensors`` and its kin are trained with.

Besides the facts that core's rules read, its own read:

- ``inputs``: ``{name: {"shape": [sizes of one sample], "dtype": "float32"}}``
- ``model_dtype``: of the floating-point parameters of the user's module, where they share one
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from flambeau.data.data import Data
from flambeau.domain import Domain
from flambeau.plan import CORE_RULES, Choice, Rule, lr_rule
from flambeau.plan.rules_model import head_rule
from flambeau.plan.rules_task import targets_accept
from flambeau.plan.value_types import FLOAT_DTYPE
from flambeau.random import generator
from flambeau.task import Classification, MultiLabel, Regression
from flambeau.tensors.data import TensorData
from flambeau.tensors.mlp import MLP
from flambeau.tensors.preprocess import TensorPreprocessor

# AdamW's decay times the train rows with which an MLP did best, and its bounds.
_DECAY_TIMES_ROWS, _LEAST_DECAY, _MOST_DECAY = 1_000, 0.01, 5.0


def _architecture(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    shapes = {name: list(column["shape"]) for name, column in facts["inputs"].items()}
    n_inputs = sum(math.prod(shape) for shape in shapes.values())
    described = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    reason = f"A sample is {n_inputs:,} numbers ({described})."
    confidence = 0.9
    if any(len(shape) > 1 for shape in shapes.values()):
        reason += " An MLP sees no neighbourhood in them: pass a module that does."
        confidence = 0.4
    return Choice(
        "architecture",
        "mlp",
        reason,
        evidence={"shapes": shapes, "n_inputs": n_inputs},
        confidence=confidence,
        override="Learner(data, module) with any nn.Module",
    )


def _normalisation(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    dtypes = {name: str(column["dtype"]) for name, column in facts["inputs"].items()}
    evidence: dict[str, Any] = {"dtypes": dtypes}
    floats = [name for name, dtype in dtypes.items() if "float" in dtype]
    if facts.get("model_given", False):
        return Choice(
            "normalisation",
            "none",
            "Your module sees the tensors as they are.",
            evidence=evidence,
            alternatives=("standard",),
            source="default",
        )
    if not facts.get("in_memory", False):
        return Choice(
            "normalisation",
            "none",
            "The rows are read while training, so their mean and deviation are not known before.",
            evidence=evidence,
            override="Standardise in your data set, or load the rows: TensorData.from_tensors(...)",
        )
    if not floats:
        return Choice(
            "normalisation",
            "none",
            f"The inputs are {', '.join(sorted(set(dtypes.values())))}: whole numbers are left as "
            "they are. Convert them to float32 to have them standardised.",
            evidence=evidence,
            confidence=0.45,
            override="TensorData.from_tensors(inputs.float(), targets)",
        )
    return Choice(
        "normalisation",
        "standard",
        f"Mean 0 and standard deviation 1, measured on {facts['n_train']:,} train rows, for "
        f"{', '.join(floats)}.",
        evidence=evidence,
        alternatives=("none",),
    )


def _weight_decay(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    """Core's choice but for our own MLP, whose decay falls with the number of rows."""
    if values["optimizer"] != "adamw" or facts.get("model_given", False):
        return _CORE_WEIGHT_DECAY.decide(facts, values)
    n = facts["n_train"]
    value = float(f"{min(_MOST_DECAY, max(_LEAST_DECAY, _DECAY_TIMES_ROWS / n)):.2g}")
    return Choice(
        "weight_decay",
        value,
        f"A prior weighs less the more rows there are: {_DECAY_TIMES_ROWS:,} / {n:,} train rows, "
        f"between {_LEAST_DECAY:g} and {_MOST_DECAY:g}. On 442 rows (diabetes) 0.01 was 10 points "
        "of RMSE behind ridge regression, this is level with it; norms and biases are left out.",
        evidence={"n_train": n, "optimizer": "adamw"},
        alternatives=(float(f"{value * 3:.2g}"), float(f"{value / 3:.2g}")),
        confidence=0.7,
    )


def _input_dtype(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    dtypes = {name: str(column["dtype"]) for name, column in facts["inputs"].items()}
    wanted = facts.get("model_dtype")
    others = [name for name, dtype in dtypes.items() if "float" in dtype and dtype != wanted]
    if wanted is None or not others:
        return Choice(
            "input_dtype",
            None,
            "The model takes the tensors in the dtype they have.",
            evidence={"dtypes": dtypes},
            override='Learner(data, choices={"input_dtype": "float32"})',
            source="default",
        )
    return Choice(
        "input_dtype",
        wanted,
        f"Your module computes in {wanted}, so {', '.join(others)} "
        f"({', '.join(sorted({dtypes[name] for name in others}))}) is cast to it.",
        evidence={"dtypes": dtypes, "model_dtype": wanted},
        alternatives=(None,),
    )


def _targets(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    if values["task"] != "regression":
        return _CORE_TARGETS.decide(facts, values)
    known = "target_mean" in facts
    value, reason = "as_is", "Your module learns the targets in their own units."
    if not known:
        reason = "The targets are read while training or whole numbers, and learned as they are."
    elif values["normalisation"] == "standard":
        value = "standard"
        reason = (
            f"Mean 0 and standard deviation 1 of {facts['n_train']:,} train rows, as the inputs; "
            "answers and metrics are in the targets' own units."
        )
    elif not facts.get("model_given", False):
        reason = "In their own units, as the inputs."
    others = ("as_is" if value == "standard" else "standard",) if known else ()
    return Choice(
        "targets",
        value,
        reason,
        evidence={"known": known, "normalisation": values["normalisation"]},
        alternatives=others,
        override="" if others else "Standardise them where the data are made.",
    )


def _targets_accept(value: Any, facts: Mapping[str, Any], values: Mapping[str, Any]) -> str | None:
    ways = ("as_is", "standard") if "target_mean" in facts else ("as_is",)
    return targets_accept(*ways)(value, facts, values)


_CORE_TARGETS = next(rule for rule in CORE_RULES if rule.key == "targets")
_CORE_WEIGHT_DECAY = next(rule for rule in CORE_RULES if rule.key == "weight_decay")
_CORE_TASK = next(rule for rule in CORE_RULES if rule.key == "task")


def _task(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    """Core's choice, but 0.0 and 1.0 are labels: where all targets are known they can be cast."""
    is_plain = facts.get("target_shape") == [] and "float" in str(facts.get("target_dtype"))
    if not (is_plain and facts.get("target_binary") and facts.get("target_distinct") == 2):
        return _CORE_TASK.decide(facts, values)
    return Choice(
        "task",
        "classification",
        f"All {facts['n_train']:,} targets are {facts['target_dtype']}, but 0 or 1: labels rather "
        "than amounts.",
        evidence={name: facts[name] for name in ("n_train", "target_dtype", "target_binary")},
        alternatives=("regression",),
        confidence=0.6,
        override='TensorData.from_tensors(inputs, targets, task="regression")',
    )


def demo(n_samples: int, seed: int) -> Data:
    """Three spirals in the plane that wind around each other, float32 ``(n_samples, 2)``.

    No straight line separates them, so a model must learn something.
    """
    draws = generator(seed, "demo")
    labels = torch.arange(n_samples) % 3
    along = torch.rand(n_samples, generator=draws)
    angle = 4 * along + labels * (2 * math.pi / 3)
    angle += 0.15 * torch.randn(n_samples, generator=draws)
    points = torch.stack([angle.cos(), angle.sin()], dim=1) * (0.1 + along).unsqueeze(1)
    names = ("first", "second", "third")
    return TensorData.from_tensors(
        points, labels, valid=0.2, test=0.2, seed=seed, class_names=names
    )


DOMAIN = Domain(
    name="tensors",
    data_classes={"TensorData": TensorData},
    models={"mlp": MLP},
    tasks={
        "classification": Classification,
        "multi_label": MultiLabel,
        "regression": Regression,
    },
    preprocessors={"tensor_preprocessor": TensorPreprocessor},
    rules=(
        Rule("architecture", (), _architecture),
        Rule("normalisation", ("architecture",), _normalisation),
        Rule("input_dtype", ("architecture",), _input_dtype, type=FLOAT_DTYPE),
        Rule("task", (), _task),
        Rule("targets", ("task", "normalisation"), _targets, _targets_accept),
        head_rule("each layer but the first"),
        Rule("weight_decay", ("optimizer",), _weight_decay),
        lr_rule({"mlp": 1e-3}),
    ),
    demo=demo,
)
