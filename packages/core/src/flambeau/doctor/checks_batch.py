"""Checks of the first batch and of what the first layers see of it."""

from __future__ import annotations

import torch
from torch import Tensor

from flambeau.doctor.finding import Finding
from flambeau.doctor.subject import Subject
from flambeau.doctor.words import listed, number

# Fewer samples than this may be alike by chance; one number a sample may be rare (a flag).
_ENOUGH = 4

_LARGE, _LARGE_COLUMN = 10.0, 20.0
_LARGE_SHARE, _COLUMN_SHARE = 0.05, 0.25  # of the values, so that one outlier is none
_TINY = 0.05  # no value is farther from 0: the first layer answers next to nothing
_FLAT = 0.05  # deviation within a channel whose mean is beyond 1


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
                f"of the first batch: sample {listed(str(number) for number in numbers)}.",
                {"samples": len(rows), "of": len(batch)},
                "Fill these values in or drop the samples; where the raw values are finite, look "
                "at the normalisation (a deviation of 0, values too large for the dtype).",
                severity="error",
            )
        )
    return found


def input_scale(subject: Subject) -> list[Finding]:
    """Numbers on another scale than first weights are made for: not normalised, or twice."""
    return list(subject.once(_off_scale))


def inputs_on_scale(subject: Subject) -> bool:
    """Whether the first layers get numbers of a usual size, so that a high loss has other roots."""
    finite = not non_finite_input(subject)
    return finite and not subject.once(_off_scale)


def _off_scale(subject: Subject) -> list[Finding]:
    # One layer tells it; others that see the same data would only repeat it.
    for layer, value in subject.look.seen.items():
        finding = _judged(layer, value.float())
        if finding is not None:
            return [finding]
    return []


def _judged(layer: str, value: Tensor) -> Finding | None:
    if len(value) < _ENOUGH or not bool(value.isfinite().all()) or bool((value == value[:1]).all()):
        return None
    size = value.abs()
    where = f"the layer {layer!r}" if layer else "the model"
    measured = {"mean": float(value.mean()), "deviation": float(value.std())}
    if value.ndim == 2 and value.shape[1] > 1:
        large = ((size > _LARGE_COLUMN).float().mean(0) > _COLUMN_SHARE).nonzero().flatten()
        if len(large):
            column = int(size.mean(0).argmax())
            measured = {"columns": len(large), "of": value.shape[1], **_of(value[:, column])}
            return _scale(
                f"Column {column} of what {where} gets has values around "
                f"{number(float(value[:, column].mean()))} (deviation "
                f"{number(float(value[:, column].std()))}), but first weights are made for a mean "
                "of 0 and a deviation of 1: large columns drown the others and the steps.",
                measured,
            )
    elif float((size > _LARGE).float().mean()) > _LARGE_SHARE:
        return _scale(
            f"What {where} gets goes from {number(float(value.min()))} to "
            f"{number(float(value.max()))}, but first weights are made for a mean of 0 and a "
            "deviation of 1.",
            measured,
        )
    if 0 < float(size.max()) < _TINY:
        return _scale(
            f"What {where} gets is never farther from 0 than {number(float(size.max()))}: scaled "
            "twice, perhaps.",
            measured,
        )
    if value.ndim > 2 and _is_flat(value):
        return _scale(
            f"What {where} gets hardly varies: mean {number(measured['mean'])}, deviation within "
            f"a channel {number(float(_channels(value).std(1).mean()))}. It was normalised twice, "
            "perhaps.",
            measured,
        )
    return None


def _scale(what: str, measured: dict[str, float | int]) -> Finding:
    mend = (
        'Standardise once: choices={"normalisation": "standard"} for tensors, the mean and '
        "deviation of train in your data set, or a norm layer first in the model."
    )
    return Finding("input-scale", what, measured, mend)


def _of(column: Tensor) -> dict[str, float]:
    return {"mean": float(column.mean()), "deviation": float(column.std())}


def _channels(value: Tensor) -> Tensor:
    """``(channels, numbers)`` of ``(batch, channels, …)``."""
    return value.transpose(0, 1).reshape(value.shape[1], -1)


def _is_flat(value: Tensor) -> bool:
    channels = _channels(value)
    deviation, mean = channels.std(1), channels.mean(1)
    return bool(((deviation < _FLAT) & (deviation > 0) & (mean.abs() > 1)).all())


def _first(value: Tensor) -> float:
    return float(value.flatten()[0].to(torch.float64)) + 0.0  # -0 as 0
