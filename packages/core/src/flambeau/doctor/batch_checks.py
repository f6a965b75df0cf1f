"""Checks of the inputs in the first batch and of their scale at the first layers."""

from __future__ import annotations

import torch
from torch import Tensor

from flambeau.doctor.finding import Finding
from flambeau.doctor.training_setup import TrainingSetup
from flambeau.wording import format_number, name_some

# Fewer samples may be equal by chance.
_ENOUGH = 4

_LARGE, _LARGE_COLUMN = 10.0, 20.0
_LARGE_SHARE, _COLUMN_SHARE = 0.05, 0.25  # of the values, so that a single outlier is ignored
_TINY = 0.05  # if no absolute value is larger, the outputs of the first layer are close to 0
_FLAT = 0.05  # standard deviation within a channel whose mean is above 1


def constant_input(setup: TrainingSetup) -> list[Finding]:
    """Find inputs with the same value in every sample: they carry no information."""
    batch = setup.batch
    if len(batch) < _ENOUGH:
        return []
    return [
        Finding(
            "constant-input",
            f"The input {name!r} is the same for all {len(batch)} samples of the first batch.",
            {"samples": len(batch), "shape": list(value.shape[1:]), "value": _first(value)},
            "Check how the inputs are read and scaled: see data.report(), and compare "
            'data.raw("train")[0] with what the model receives.',
            severity="error" if len(batch.inputs) == 1 else "warning",
        )
        for name, value in batch.inputs.items()
        # A single value per sample, such as a flag, may be the same by chance.
        if value[0].numel() > 1 and bool((value == value[:1]).all())
    ]


def non_finite_input(setup: TrainingSetup) -> list[Finding]:
    """Find NaN or infinity in the inputs, after preprocessing and normalisation."""
    batch = setup.batch
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
                f"The input {name!r} contains NaN or infinity in {len(rows)} of {len(batch)} "
                f"samples of the first batch: sample {name_some(numbers)}.",
                {"samples": len(rows), "of": len(batch)},
                "Replace these values or drop the samples. If the raw values are finite, check the "
                "normalisation (a standard deviation of 0, values too large for the dtype).",
                severity="error",
            )
        )
    return found


def input_scale(setup: TrainingSetup) -> list[Finding]:
    """Find inputs that are not normalised, or normalised twice."""
    return list(setup.cached(_off_scale))


def inputs_on_scale(setup: TrainingSetup) -> bool:
    """Return whether inputs are finite and normalised, so they cannot explain a high loss."""
    finite = not non_finite_input(setup)
    return finite and not setup.cached(_off_scale)


def _off_scale(setup: TrainingSetup) -> list[Finding]:
    # One finding is enough: other layers that receive the same data would only repeat it.
    for layer, value in setup.forward_pass.layer_inputs.items():
        finding = _scale_finding(layer, value.float())
        if finding is not None:
            return [finding]
    return []


def _scale_finding(layer: str, value: Tensor) -> Finding | None:
    if len(value) < _ENOUGH or not bool(value.isfinite().all()) or bool((value == value[:1]).all()):
        return None
    size = value.abs()
    where = f"of the layer {layer!r}" if layer else "of the model"
    measured = {"mean": float(value.mean()), "std": float(value.std())}
    if value.ndim == 2 and value.shape[1] > 1:
        large = ((size > _LARGE_COLUMN).float().mean(0) > _COLUMN_SHARE).nonzero().flatten()
        if len(large):
            column = int(size.mean(0).argmax())
            measured = {"columns": len(large), "of": value.shape[1], **_of(value[:, column])}
            return _finding(
                f"Column {column} of the input {where} has mean "
                f"{format_number(float(value[:, column].mean()))} and standard deviation "
                f"{format_number(float(value[:, column].std()))}, but the initial weights expect "
                "mean 0 and standard deviation 1. Large columns dominate the others and the "
                "gradients.",
                measured,
            )
    elif float((size > _LARGE).float().mean()) > _LARGE_SHARE:
        return _finding(
            f"The input {where} ranges from {format_number(float(value.min()))} to "
            f"{format_number(float(value.max()))}, but the initial weights expect mean 0 and "
            "standard deviation 1.",
            measured,
        )
    if 0 < float(size.max()) < _TINY:
        return _finding(
            f"No absolute value in the input {where} exceeds {format_number(float(size.max()))}. "
            "It may have been scaled twice.",
            measured,
        )
    if value.ndim > 2 and _is_flat(value):
        return _finding(
            f"The input {where} hardly varies: mean {format_number(measured['mean'])}, standard "
            f"deviation within a channel {format_number(float(_channels(value).std(1).mean()))}. "
            "It may have been normalised twice.",
            measured,
        )
    return None


def _finding(what: str, measured: dict[str, float | int]) -> Finding:
    fix = (
        'Normalise once: set choices={"normalisation": "standard"} for tensors, or use the mean '
        "and standard deviation of train in your data set, or start the model with a norm layer."
    )
    return Finding("input-scale", what, measured, fix)


def _of(column: Tensor) -> dict[str, float]:
    return {"mean": float(column.mean()), "std": float(column.std())}


def _channels(value: Tensor) -> Tensor:
    """Return ``(channels, values)`` of ``(batch, channels, …)``."""
    return value.transpose(0, 1).reshape(value.shape[1], -1)


def _is_flat(value: Tensor) -> bool:
    channels = _channels(value)
    std, mean = channels.std(1), channels.mean(1)
    return bool(((std < _FLAT) & (std > 0) & (mean.abs() > 1)).all())


def _first(value: Tensor) -> float:
    return float(value.flatten()[0].to(torch.float64)) + 0.0  # -0 becomes 0
