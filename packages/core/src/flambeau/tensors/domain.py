"""The domain of tensors, for data created by ``TensorData``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from flambeau.data.data import Data
from flambeau.data.facts import train_count
from flambeau.doctor.check import Check
from flambeau.doctor.finding import Finding
from flambeau.doctor.training_setup import TrainingSetup
from flambeau.domain import Domain
from flambeau.plan import Choice, Rule, lr_rule
from flambeau.plan.rules_model import head_rule
from flambeau.plan.rules_task import targets_accept
from flambeau.plan.value_types import FLOAT_DTYPE
from flambeau.random import generator
from flambeau.task import Classification, MultiLabel, Regression
from flambeau.task.log_link import Gamma, Poisson, Tweedie
from flambeau.task.quantiles import QuantileRegression
from flambeau.tensors.data import TensorData
from flambeau.tensors.facts import TensorFacts
from flambeau.tensors.mlp import MLP
from flambeau.tensors.preprocess import TensorPreprocessor

# Best product of AdamW's weight decay and the number of train rows for an MLP; bounds of the decay.
_DECAY_TIMES_ROWS, _LEAST_DECAY, _MOST_DECAY = 1_000, 0.01, 5.0


IMAGE_HINT = (
    "They look like images: ImageData.from_datasets and ImageData.from_arrays choose a network, "
    "augmentation and normalisation for them."
)


def looks_like_image(shape: Sequence[int]) -> bool:
    """Return whether a sample of this shape may be an image.

    It has 1, 3 or 4 channels and sides of at least 16, or is a square of grey values.
    """
    if len(shape) == 2:
        return shape[0] == shape[1] >= 16
    if len(shape) != 3:
        return False
    first, middle, last = shape
    sides = (middle, last) if first in (1, 3, 4) else (first, middle)
    return (first in (1, 3, 4) or last in (1, 3, 4)) and min(sides) >= 16


def _images_as_vectors(setup: TrainingSetup) -> Finding | None:
    """Find images that an MLP reads as vectors."""
    if setup.values.get("architecture") != "mlp":
        return None
    shapes = {name: list(column["shape"]) for name, column in setup.facts.get("inputs", {}).items()}
    images = [name for name, shape in shapes.items() if looks_like_image(shape)]
    if not images:
        return None
    return Finding(
        "images-as-vectors",
        f"An MLP reads {images[0]} {tuple(shapes[images[0]])} as a vector, without its spatial "
        "structure.",
        {"shape": shapes[images[0]]},
        f"{IMAGE_HINT} Or pass a module that uses it.",
    )


def _architecture(facts: TensorFacts, values: Mapping[str, Any]) -> Choice:
    shapes = {name: list(column["shape"]) for name, column in facts["inputs"].items()}
    n_inputs = sum(math.prod(shape) for shape in shapes.values())
    described = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    reason = f"A sample has {n_inputs:,} values ({described})."
    confidence = 0.9
    if any(len(shape) > 1 for shape in shapes.values()):
        reason += " An MLP ignores their spatial structure: pass a module that uses it."
        confidence = 0.4
    if any(map(looks_like_image, shapes.values())):
        reason += f" {IMAGE_HINT}"
    return Choice(
        "architecture",
        "mlp",
        reason,
        evidence={"shapes": shapes, "n_inputs": n_inputs},
        confidence=confidence,
        override="Learner(data, module) with any nn.Module",
    )


def _normalisation(facts: TensorFacts, values: Mapping[str, Any]) -> Choice:
    dtypes = {name: str(column["dtype"]) for name, column in facts["inputs"].items()}
    evidence: dict[str, Any] = {"dtypes": dtypes}
    floats = [name for name, dtype in dtypes.items() if "float" in dtype]
    if facts.get("model_given", False):
        return Choice(
            "normalisation",
            "none",
            "Your module receives the tensors unchanged.",
            evidence=evidence,
            alternatives=("standard",),
            source="default",
        )
    if not facts.get("in_memory", False):
        return Choice(
            "normalisation",
            "none",
            "The samples are read during training, so their mean and standard deviation are not "
            "known in advance.",
            evidence=evidence,
            override="Standardise in the data set, or load the data: TensorData.from_tensors(...)",
        )
    if not floats:
        return Choice(
            "normalisation",
            "none",
            f"The inputs are {', '.join(sorted(set(dtypes.values())))}; integers are not "
            "standardised. Convert them to floats to standardise them.",
            evidence=evidence,
            confidence=0.45,
            override="TensorData.from_tensors(inputs.double(), targets)",
        )
    return Choice(
        "normalisation",
        "standard",
        f"Standardises {', '.join(floats)} with the mean and standard deviation of "
        f"{facts['n_train']:,} train rows.",
        evidence=evidence,
        alternatives=("none",),
    )


def _weight_decay(base: Choice, facts: TensorFacts, values: Mapping[str, Any]) -> Choice:
    """Return core's choice, but for flambeau's MLP less weight decay with more train rows."""
    if values["optimizer"] != "adamw" or facts.get("model_given", False):
        return base
    n = facts["n_train"]
    value = float(f"{min(_MOST_DECAY, max(_LEAST_DECAY, _DECAY_TIMES_ROWS / n)):.2g}")
    return Choice(
        "weight_decay",
        value,
        f"Less regularisation for more data: {_DECAY_TIMES_ROWS:,} / {train_count(facts)} train "
        f"rows, between {_LEAST_DECAY:g} and {_MOST_DECAY:g}. On 442 rows (diabetes) this gave the "
        "RMSE of ridge regression; 0.01 was 10 points worse. Norm parameters and biases have no "
        "decay.",
        evidence={"n_train": n, "optimizer": "adamw"},
        alternatives=(float(f"{value * 3:.2g}"), float(f"{value / 3:.2g}")),
        confidence=0.7,
    )


def _input_dtype(facts: TensorFacts, values: Mapping[str, Any]) -> Choice:
    dtypes = {name: str(column["dtype"]) for name, column in facts["inputs"].items()}
    wanted = facts.get("model_dtype")
    others = [name for name, dtype in dtypes.items() if "float" in dtype and dtype != wanted]
    if wanted is None or not others:
        return Choice(
            "input_dtype",
            None,
            "The model receives the tensors in their own dtype.",
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


def _targets(base: Choice, facts: TensorFacts, values: Mapping[str, Any]) -> Choice:
    if values["task"] not in ("regression", "quantile_regression"):
        return base
    known = "target_mean" in facts
    value, reason = "as_is", "Your module predicts the targets in their own units."
    if not known:
        reason = "The targets are read during training; they are not standardised."
    elif values["normalisation"] == "standard":
        value = "standard"
        reason = (
            f"Standardised like the inputs, with the mean and standard deviation of "
            f"{facts['n_train']:,} train rows; predictions and metrics are in the original units."
        )
    elif not facts.get("model_given", False):
        reason = "Not standardised, because the inputs are not."
    others = ("as_is" if value == "standard" else "standard", *_logs(facts)) if known else ()
    return Choice(
        "targets",
        value,
        reason,
        evidence={"known": known, "normalisation": values["normalisation"]},
        alternatives=others,
        override="" if others else "Standardise the targets before creating the data.",
    )


def _logs(facts: TensorFacts) -> tuple[str, ...]:
    """Return the logarithms that all train targets have, which are then standardised."""
    low = facts.get("target_min")
    if low is None or low < 0 or not facts.get("in_memory", False):
        return ()
    return ("log", "log1p") if low > 0 else ("log1p",)


def _targets_accept(value: Any, facts: TensorFacts, values: Mapping[str, Any]) -> str | None:
    ways = ("as_is", "standard") if "target_mean" in facts else ("as_is",)
    if values["task"] in ("regression", "quantile_regression"):
        ways = (*ways, *_logs(facts))
    return targets_accept(*ways)(value, facts, values)


def _task(base: Choice, facts: TensorFacts, values: Mapping[str, Any]) -> Choice:
    """Return core's choice, but treat floating-point targets that are all 0.0 or 1.0 as labels."""
    dtype, binary = str(facts.get("target_dtype")), facts.get("target_binary", False)
    is_plain = facts.get("target_shape") in ([], [1]) and "float" in dtype
    is_named = facts.get("class_names_given", False)
    if is_named or not (is_plain and binary and facts.get("target_distinct") == 2):
        return base
    return Choice(
        "task",
        "classification",
        f"All {facts['n_train']:,} targets are 0 or 1 ({dtype}): probably class labels.",
        evidence={"n_train": facts["n_train"], "target_dtype": dtype, "target_binary": binary},
        alternatives=("regression",),
        confidence=0.6,
        override='TensorData.from_tensors(inputs, targets, task="regression")',
    )


def demo(n_samples: int, seed: int) -> Data:
    """Return three interleaved spirals in the plane, float32 ``(n_samples, 2)``.

    A linear model cannot separate them.
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
        "quantile_regression": QuantileRegression,
        "poisson": Poisson,
        "gamma": Gamma,
        "tweedie": Tweedie,
    },
    preprocessors={"tensor_preprocessor": TensorPreprocessor},
    rules=(
        Rule("architecture", (), _architecture),
        Rule("normalisation", ("architecture",), _normalisation, determines="preprocessor"),
        Rule(
            "input_dtype",
            ("architecture",),
            _input_dtype,
            type=FLOAT_DTYPE,
            determines="preprocessor",
        ),
        Rule.extending("task", _task),
        Rule.extending("targets", _targets, needs=("normalisation",), accepts=_targets_accept),
        head_rule("each layer but the first"),
        Rule.extending("weight_decay", _weight_decay),
        lr_rule({"mlp": 1e-3}),
    ),
    checks=(
        Check(
            "images-as-vectors",
            "images that an MLP reads as vectors",
            _images_as_vectors,
            "facts",
            "first fit",
            "docs/doctor.md#images-as-vectors",
        ),
    ),
    demo=demo,
)
