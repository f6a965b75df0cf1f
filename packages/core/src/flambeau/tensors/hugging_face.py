"""Read Hugging Face data sets, recognised by their methods; ``datasets`` is never imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.data.collate import BatchLayout
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.wording import name_some

_NUMBERS = ("bool", "int", "uint", "float")


def is_hugging_face(items: object) -> bool:
    """Return whether ``items`` has the methods of a Hugging Face data set."""
    return hasattr(items, "column_names") and hasattr(items, "with_format")


def class_label_names(items: Any, layout: BatchLayout) -> list[str] | None:
    """Return the names of a ``ClassLabel`` column if it is the only target, else None."""
    if not is_hugging_face(items) or len(layout.targets or ()) != 1:
        return None
    feature = _features(items).get(cast(Sequence[str], layout.targets)[0])
    names = getattr(feature, "names", None)
    return [str(name) for name in names] if names else None


def check_label_names(
    parts: Mapping[str, Any], layout: BatchLayout, class_names: Sequence[str] | None
) -> None:
    """Raise an error if the class numbers of two parts or of ``class_names`` differ in meaning.

    Raises:
        InputError: A ``ClassLabel`` column has other names, or names in another order, than in
            train; or ``class_names`` are those of the target in another order.
    """
    train = _label_names(parts["train"], layout)
    for part, items in parts.items():
        for column, names in _label_names(items, layout).items():
            if names != train.get(column, names):
                raise InputError(
                    f"The column {column!r} has the class names {name_some(names)} in {part}, but "
                    f"{name_some(train[column])} in train, so that a class number has two "
                    f"meanings. Number {part} as train: {part}.align_labels_with_mapping("
                    f"{{name: number for number, name in enumerate(train.features[{column!r}]"
                    f".names)}}, {column!r})."
                )
    for column in layout.targets or ():
        names = train.get(column, [])
        given = list(class_names or names)
        if given != names and sorted(given) == sorted(names):
            raise InputError(
                f"class_names has the names of the column {column!r} in another order: "
                f"{name_some(given)} instead of {name_some(names)}. Omit class_names."
            )


def _label_names(items: Any, layout: BatchLayout) -> dict[str, list[str]]:
    """Return the names of each ``ClassLabel`` column that is used, also for lists of labels."""
    if not is_hugging_face(items):
        return {}
    features = _features(items)
    found: dict[str, list[str]] = {}
    for column in (*(layout.inputs or ()), *(layout.targets or ())):
        feature = features.get(column)
        while not hasattr(feature, "names") and hasattr(feature, "feature"):
            feature = cast(Any, feature).feature
        if names := getattr(feature, "names", None):
            found[column] = [str(name) for name in names]
    return found


def load_numeric_columns(
    items: Any, layout: BatchLayout
) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    """Return inputs and targets as tensors if all values are scalar numbers, else None.

    A data set with a transform or format is not loaded, because the transform may be random.

    Raises:
        ArgumentError: The columns are not given, or one does not exist.
    """
    known: list[str] = list(items.column_names)
    if layout.inputs is None:
        raise ArgumentError(
            f"The data set has the columns {', '.join(map(repr, known))}, so it is unknown which "
            f"are inputs and which are targets. Write inputs=({known[0]!r},), "
            f"targets=({known[-1]!r},)."
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
    # The torch format itself converts float64 to float32.
    doubles = [
        name
        for name in {*layout.inputs, *targets}
        if getattr(features[name], "dtype", None) == "float64"
    ]
    rows = {
        **_read(items, [*layout.inputs, *targets]),
        **(_read(items, doubles, dtype=torch.float64) if doubles else {}),
    }
    return {name: rows[name] for name in layout.inputs}, {name: rows[name] for name in targets}


def with_torch_format(items: Any) -> Any:
    """Return the data set in torch format if it is a Hugging Face data set without a format."""
    if is_hugging_face(items) and items.format.get("type") is None:
        return items.with_format("torch")
    return items


def _features(items: Any) -> Mapping[str, Any]:
    return items.features or {}


def _is_number(feature: Any) -> bool:
    # A numeric Value or ClassLabel; lists, images and strings have another dtype or a shape.
    dtype = getattr(feature, "dtype", None)
    return (
        isinstance(dtype, str)
        and dtype.rstrip("0123456789") in _NUMBERS
        and getattr(feature, "shape", None) is None
    )


def _read(items: Any, names: Sequence[str], **options: Any) -> dict[str, Tensor]:
    """Return columns of a Hugging Face data set by name."""
    from flambeau.data.float_dtype import to_default_dtype

    rows: Mapping[str, Any] = items.select_columns(list(names)).with_format("torch", **options)[:]
    return {name: to_default_dtype(torch.as_tensor(rows[name])) for name in names}
