"""Convert the plan's values to the arguments of preprocessor, model, task and transforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from flambeau.artefact.read_like import read_record
from flambeau.data.data import head_arguments, select_values
from flambeau.data.split import Rows
from flambeau.data.targets import Targets
from flambeau.data.transform import Transform
from flambeau.errors import PlanError
from flambeau.task.named_losses import loss_arguments
from flambeau_vision.augment import Augment
from flambeau_vision.augmentation_settings import Augmentation
from flambeau_vision.mixup_cutmix import Mix, Mixing
from flambeau_vision.models import BACKBONE_NAMES, WeightsRecord, weights_record
from flambeau_vision.options import ImageOptions
from flambeau_vision.preprocess import channel_statistics, visible_share
from flambeau_vision.resize import Geometry


def planned_weights_record(values: Mapping[str, Any]) -> WeightsRecord | None:
    """Return the record of the planned weights; None without weights or without a record."""
    weights, architecture = values.get("weights"), values.get("architecture")
    if weights is None or architecture not in BACKBONE_NAMES:
        return None
    return weights_record(architecture, weights)


def image_geometry(values: Mapping[str, Any], options: ImageOptions) -> Geometry:
    """Return size and resize method of the model's input; crop and filter are the weights'.

    Crop and filter keep their defaults if there are no weights or no record of them. If
    ``options.like`` is an export, all values are the export's.
    """
    if options.like is not None:
        saved = read_record(options.like, "vision", "like").preprocessor.arguments
        saved = {**saved, **saved.get("pixels", {})}
        names = [entry.name for entry in fields(Geometry) if entry.name in saved]
        return Geometry(**{name: saved[name] for name in names})
    geometry = options.geometry(values["image_size"], int(values["channels"]))
    known = {name: values[name] for name in ("resize", "bits", "white") if name in values}
    geometry = replace(geometry, **known)
    record = planned_weights_record(values)
    if record is None:
        return geometry
    # torchvision's names of interpolation modes are the names of Pillow's filters.
    return replace(geometry, crop=record.crop, interpolation=record.interpolation)  # pyright: ignore[reportArgumentType]


def mean_and_std(
    values: Mapping[str, Any], channels: int, train_pixels: Callable[[], Tensor]
) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and std of each channel for the plan's value "normalisation".

    Args:
        values: The plan's values.
        channels: Number of channels.
        train_pixels: Returns uint8 train images; called only if mean and std are computed from
            them.

    Raises:
        PlanError: The value is unknown, or the planned weights have no known mean and std.
    """
    given = values.get("normalisation", "train")
    if isinstance(given, Mapping):
        missing = [name for name in ("mean", "std") if name not in given]
        if missing:
            raise PlanError(
                f"normalisation={given!r} lacks {' and '.join(missing)}. Give "
                '{"mean": […], "std": […]}.'
            )
        return given["mean"], given["std"]
    if given == "none":
        return [0.0] * channels, [1.0] * channels
    if given == "train":
        return channel_statistics(train_pixels())
    if given != "weights":
        raise PlanError(
            f"Unknown normalisation={given!r}. Choose 'train', 'weights', 'none' or "
            '{"mean": […], "std": […]}.'
        )
    record = planned_weights_record(values)
    if record is None:
        raise PlanError(
            "normalisation='weights' needs the mean and std of the pretrained weights, which are "
            f"unknown for weights={values.get('weights')!r}. Use normalisation='train'."
        )
    return _adapt_channels(record.mean, channels), _adapt_channels(record.std, channels)


def _adapt_channels(numbers: Sequence[float], channels: int) -> list[float]:
    """Return the three numbers as ``channels`` numbers: their mean for one, else repeated."""
    if channels == 1:
        return [sum(numbers) / len(numbers)]
    return [numbers[channel % len(numbers)] for channel in range(channels)]


def model_arguments(values: Mapping[str, Any], targets: Targets) -> Mapping[str, Any]:
    """Return the arguments of the model's builder."""
    arguments = {
        "in_channels": values["channels"],
        "n_outputs": len(targets.names),
        "image_size": values["image_size"],
        **head_arguments(values),
    }
    # Only architectures with published weights accept the argument.
    weights = values.get("weights")
    return arguments if weights is None else {**arguments, "weights": weights}


def task_arguments(values: Mapping[str, Any], targets: Targets, train: Rows) -> Mapping[str, Any]:
    """Return the arguments of the task, with mean and std of regression targets over train rows."""
    names = list(targets.names)
    if targets.kind != "regression":
        counts = targets.select(train).counts()
        loss = loss_arguments(values, [counts.get(name, 0) for name in names])
        return {"classes": names, **select_values(values, "metrics"), **loss}
    arguments = {"names": names, **select_values(values, "metrics"), **loss_arguments(values)}
    if values.get("targets") == "as_is":
        return arguments
    train_values = targets.select(train).values.double().reshape(-1, len(names))
    # The std of a constant target is 0, which cannot be a divisor.
    std = [value or 1.0 for value in train_values.std(dim=0, correction=0).tolist()]
    return {**arguments, "mean": train_values.mean(dim=0).tolist(), "std": std}


def device_transforms(
    values: Mapping[str, Any], options: ImageOptions, targets: Targets
) -> Sequence[Transform]:
    """Return the transforms of training batches: augmentation (with presizing) and mixing.

    Args:
        values: The plan's values.
        options: Options for reading images.
        targets: The targets.

    Raises:
        PlanError: Regression targets cannot be mixed.
    """
    transforms: list[Transform] = []
    if values.get("augmentation") is not None:
        augmentation = Augmentation.from_json(values["augmentation"])
        if values.get("presize") is not None:
            geometry = image_geometry(values, options)
            transforms.append(Augment(augmentation, geometry.height, visible_share(geometry)))
        elif augmentation.is_active:
            transforms.append(Augment(augmentation))
    if values.get("mixing") is not None:
        if targets.kind == "regression":
            raise PlanError(
                f"mixing={values['mixing']!r} mixes class labels, and this is a regression. "
                "Remove mixing."
            )
        transforms.append(Mix(Mixing.from_json(values["mixing"]), len(targets.names)))
    return tuple(transforms)
