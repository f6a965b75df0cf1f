"""Hugging Face ``datasets.Dataset``, recognised by its methods; the package is never imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.data.collate import BatchLayout
from flambeau.errors import ArgumentError, did_you_mean

_NUMBERS = ("bool", "int", "uint", "float")


def is_hugging_face(items: object) -> bool:
    """Whether ``items`` has the columns and formats of a Hugging Face data set."""
    return hasattr(items, "column_names") and hasattr(items, "with_format")


def class_label_names(items: Any, layout: BatchLayout) -> list[str] | None:
    """The names in a ``ClassLabel`` column, where that is the only target."""
    if not is_hugging_face(items) or len(layout.targets or ()) != 1:
        return None
    feature = _features(items).get(cast(Sequence[str], layout.targets)[0])
    names = getattr(feature, "names", None)
    return [str(name) for name in names] if names else None


def load_numeric_columns(
    items: Any, layout: BatchLayout
) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    """Inputs and targets as tensors where all are plain numbers, else None.

    Data with a transform or a format of their own are left alone, for it may augment.

    Raises:
        ArgumentError: The columns are not declared, or one does not exist.
    """
    known: list[str] = list(items.column_names)
    if layout.inputs is None:
        raise ArgumentError(
            f"The data set has the columns {', '.join(map(repr, known))}, so what is input and "
            f"what target must be declared: write inputs=({known[0]!r},), targets=({known[-1]!r},)."
        )
    targets = layout.targets or ()
    for name in (*layout.inputs, *targets):
        if name not in known:
            raise ArgumentError(f"The data set has no column {name!r}. {did_you_mean(name, known)}")
    if items.format.get("type") is not None:
        return None
    features = _features(items)
    if not all(_is_number(features.get(name)) for name in (*layout.inputs, *targets)):
        return None
    rows: Mapping[str, Any] = items.select_columns([*layout.inputs, *targets]).with_format("torch")[
        :
    ]
    return {name: _column(rows[name]) for name in layout.inputs}, {
        name: _column(rows[name]) for name in targets
    }


def with_torch_format(items: Any) -> Any:
    """The data set giving tensors, unless it has a format of its own; others as they are."""
    if is_hugging_face(items) and items.format.get("type") is None:
        return items.with_format("torch")
    return items


def _features(items: Any) -> Mapping[str, Any]:
    return items.features or {}


def _is_number(feature: Any) -> bool:
    # A Value or ClassLabel of numbers; lists, images and strings have no such dtype or a shape.
    dtype = getattr(feature, "dtype", None)
    return (
        isinstance(dtype, str)
        and dtype.rstrip("0123456789") in _NUMBERS
        and getattr(feature, "shape", None) is None
    )


def _column(values: Any) -> Tensor:
    tensor = torch.as_tensor(values)
    return tensor.to(torch.get_default_dtype()) if tensor.dtype == torch.float64 else tensor
