"""Core's own checks: cheap and exact, for every domain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from flambeau.doctor.check import Check
from flambeau.doctor.finding import Finding
from flambeau.doctor.subject import Subject
from flambeau.task.classification import Classification

# Fewer samples than this may be alike by chance; one number a sample may be rare (a flag).
_ENOUGH = 4
# Nats above ln C: on (geometric) average the right class gets less than 1/20 of a guess's
# probability. Small nets start within 0.3, a residual net with pooled maxima 1.6 above.
_ABOVE_GUESSING = 3.0
_SUM_TOLERANCE = 1e-3  # of a float16 softmax over some thousand classes


def class_missing(subject: Subject) -> Finding | None:
    """Classes that no train row has: the model can answer with them but never learns one."""
    names, counts = subject.facts.get("class_names"), subject.facts.get("class_counts")
    if not names or not counts:
        return None
    by_name: Mapping[str, int] = (
        cast("Mapping[str, int]", counts)
        if isinstance(counts, Mapping)
        else dict(zip(names, counts, strict=True))
    )
    missing = [str(name) for name in names if not by_name.get(name, 0)]
    if not missing:
        return None
    one = len(missing) == 1
    return Finding(
        "class-not-in-train",
        f"No train row has the class{'' if one else 'es'} {_listed(missing)}.",
        {"classes": len(names), "missing": len(missing), "train rows": subject.facts["n_train"]},
        "Add samples of it to train (a stratified split keeps each class's share), or take the "
        "class out of the class names.",
    )


def constant_input(subject: Subject) -> list[Finding]:
    """Inputs that are the same for every sample, so that nothing can be told from them."""
    batch = subject.batch
    if len(batch) < _ENOUGH:
        return []
    return [
        Finding(
            "constant-input",
            f"The input {name!r} is the same for all {len(batch)} samples of the first batch.",
            {"samples": len(batch), "shape": list(value.shape[1:]), "value": _first(value)},
            "Look at what is read and how it is scaled: data.report(), and "
            'data.raw("train")[0] beside what the model gets.',
            severity="error" if len(batch.inputs) == 1 else "warning",
        )
        for name, value in batch.inputs.items()
        if value[0].numel() > 1 and bool((value == value[:1]).all())
    ]


def non_finite_input(subject: Subject) -> list[Finding]:
    """NaN or infinity in what the model gets, after preprocessing and normalisation."""
    batch = subject.batch
    found: list[Finding] = []
    for name, value in batch.inputs.items():
        if not value.is_floating_point():
            continue
        wrong = ~value.isfinite().reshape(len(value), -1).all(1)
        rows = [int(row) for row in wrong.nonzero().flatten()]
        if not rows:
            continue
        numbers = rows if batch.indices is None else [int(batch.indices[row]) for row in rows]
        found.append(
            Finding(
                "non-finite-input",
                f"The input {name!r} holds NaN or infinity in {len(rows)} of {len(batch)} samples "
                f"of the first batch: sample {_listed([str(number) for number in numbers])}.",
                {"samples": len(rows), "of": len(batch)},
                "Fill these values in or drop the samples; where the raw values are finite, look "
                "at the normalisation (a deviation of 0, values too large for the dtype).",
                severity="error",
            )
        )
    return found


def softmax_before_loss(subject: Subject) -> Finding | None:
    """Probabilities where cross entropy expects logits: it takes their softmax once more."""
    answer = _logits(subject)
    if answer is None or answer.shape[1] < 2:
        return None
    sums = answer.float().sum(1)
    probabilities = bool((answer >= 0).all()) and bool((sums - 1).abs().max() < _SUM_TOLERANCE)
    if not probabilities:
        return None
    return Finding(
        "softmax-before-loss",
        f"{type(subject.model).__name__} answers with probabilities, but cross entropy expects "
        "logits and takes the softmax itself: gradients become small and the loss cannot fall "
        f"below {_floor(answer.shape[1]):.3f}.",
        {
            "smallest": float(answer.min()),
            "rows add up to": [float(sums.min()), float(sums.max())],
        },
        "Take the softmax out of the model's forward; predict applies it.",
        severity="error",
    )


def loss_at_start(subject: Subject) -> Finding | None:
    """A first loss far above that of guessing: answers too large, or another scale than meant."""
    answer = _logits(subject)
    if answer is None or subject.steps_done:
        return None
    guessing = math.log(answer.shape[1])
    loss = subject.loss
    if math.isfinite(loss) and loss <= guessing + _ABOVE_GUESSING:
        return None
    return Finding(
        "loss-at-start",
        f"Before any training the loss is {loss:.3g}; guessing among {answer.shape[1]} classes "
        f"gives {guessing:.3g}.",
        {"loss": loss, "guessing": guessing, "largest output": float(answer.abs().max())},
        "Normalise the inputs, or start the last layer with smaller weights. Weights that were "
        "trained on other classes need a new last layer.",
        severity="warning" if math.isfinite(loss) else "error",
    )


def _logits(subject: Subject) -> Tensor | None:
    """The model's answer where the task is core's classification, else None."""
    if not isinstance(subject.task, Classification):
        return None
    answer = subject.answer
    return answer if isinstance(answer, Tensor) and answer.ndim >= 2 else None


def _floor(n_classes: int) -> float:
    """Least cross entropy of a softmax over numbers from 0 to 1."""
    return math.log(math.e + n_classes - 1) - 1


def _first(value: Tensor) -> float:
    return float(value.flatten()[0].to(torch.float64)) + 0.0  # -0 as 0


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


CORE_CHECKS: tuple[Check, ...] = (
    Check("class-not-in-train", "classes without a train row", class_missing),
    Check("constant-input", "inputs that are the same for all samples", constant_input),
    Check("non-finite-input", "NaN or infinity in the inputs", non_finite_input),
    Check("softmax-before-loss", "a softmax before cross entropy", softmax_before_loss),
    Check("loss-at-start", "a first loss above that of guessing", loss_at_start),
)
"""The checks that every domain shares; one that a domain contributes under a code replaces it."""
