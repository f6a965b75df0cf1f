"""From the plan's values to what preprocessor, model and task are built with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from flambeau.data.data import head_arguments, planned
from flambeau.data.split import Rows
from flambeau.errors import PlanError
from flambeau.task.named_losses import loss_arguments
from flambeau_vision.labels import Targets
from flambeau_vision.models import BACKBONE_NAMES, WeightsRecord, weights_record
from flambeau_vision.options import ImageOptions
from flambeau_vision.preprocess import statistics
from flambeau_vision.resize import Geometry


def record_of(values: Mapping[str, Any]) -> WeightsRecord | None:
    """What the starting weights say about pictures; None from scratch or for unknown weights."""
    weights, architecture = values.get("weights"), values.get("architecture")
    if weights is None or architecture not in BACKBONE_NAMES:
        return None
    return weights_record(architecture, weights)


def geometry_of(values: Mapping[str, Any], options: ImageOptions) -> Geometry:
    """What every picture is brought to; crop and filter are the weights' where there are some."""
    size, channels = int(values["image_size"]), int(values["channels"])
    record = record_of(values)
    if record is None:
        return Geometry(size, channels, options.resize, interpolation=options.interpolation)
    # The record's words are torchvision's, which are Pillow's filters by the same name.
    return Geometry(size, channels, options.resize, record.crop, record.interpolation)  # pyright: ignore[reportArgumentType]


def normalisation_of(
    values: Mapping[str, Any], channels: int, train_pixels: Callable[[], Tensor]
) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and std a channel for the plan's value "normalisation".

    Args:
        values: The plan's.
        channels: How many numbers are needed.
        train_pixels: Gives uint8 pictures of train rows only; called where they are measured.

    Raises:
        PlanError: The value is unknown, or asks for a record that does not exist.
    """
    given = values.get("normalisation", "train")
    if isinstance(given, Mapping):
        missing = [name for name in ("mean", "std") if name not in given]
        if missing:
            raise PlanError(f"normalisation={given!r} has no {' and no '.join(missing)}.")
        return given["mean"], given["std"]
    if given == "none":
        return [0.0] * channels, [1.0] * channels
    if given == "train":
        return statistics(train_pixels())
    if given != "weights":
        raise PlanError(
            f"normalisation={given!r} is none of 'train', 'weights', 'none' or "
            '{"mean": […], "std": […]}.'
        )
    record = record_of(values)
    if record is None:
        raise PlanError(
            "normalisation='weights' asks for the record of the starting weights, and "
            f"weights={values.get('weights')!r} has none. Use normalisation='train'."
        )
    return _for_channels(record.mean, channels), _for_channels(record.std, channels)


def _for_channels(numbers: Sequence[float], channels: int) -> list[float]:
    """The weights' three numbers for other channels, as the stem's weights are adapted."""
    if channels == 1:
        return [sum(numbers) / len(numbers)]
    return [numbers[channel % len(numbers)] for channel in range(channels)]


def model_arguments(values: Mapping[str, Any], targets: Targets) -> Mapping[str, Any]:
    """What a network is built with."""
    arguments = {
        "in_channels": values["channels"],
        "n_outputs": len(targets.names),
        "image_size": values["image_size"],
        **head_arguments(values),
    }
    # Only networks with published weights take the argument.
    weights = values.get("weights")
    return arguments if weights is None else {**arguments, "weights": weights}


def task_arguments(values: Mapping[str, Any], targets: Targets, train: Rows) -> Mapping[str, Any]:
    """What the task is built with; amounts to predict are scaled by their train rows."""
    names = list(targets.names)
    if targets.kind != "regression":
        counts = targets.select(train).counts()
        loss = loss_arguments(values, [counts.get(name, 0) for name in names])
        return {"classes": names, **planned(values, "metrics"), **loss}
    arguments = {"names": names, **planned(values, "metrics"), **loss_arguments(values)}
    if values.get("targets") == "as_is":
        return arguments
    amounts = targets.select(train).values.double().reshape(-1, len(names))
    # A constant target has no spread to divide by.
    std = [value or 1.0 for value in amounts.std(dim=0, correction=0).tolist()]
    return {**arguments, "mean": amounts.mean(dim=0).tolist(), "std": std}
