"""Predictions as a frame of the kind of the input, with class labels of the type in train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from flambeau.data.prediction_columns import nested_name
from flambeau_tabular.frame_rows import FrameRows

LabelType = Literal["integer", "number", "boolean"]
"""Type of the class labels in the target column, if it is not text."""

_READ = {"integer": int, "number": float, "boolean": {"False": False, "True": True}.__getitem__}


def label_type_of(kind: pa.DataType, classes: Sequence[str]) -> LabelType | None:
    """Return the type of the labels of a target column; None if they are text.

    Args:
        kind: Type of the cells.
        classes: Names of the classes. If they are not the text of such cells, labels are text.
    """
    found: LabelType | None = None
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        found = "boolean"
    elif pa.types.is_integer(kind):
        found = "integer"
    elif pa.types.is_floating(kind):
        found = "number"
    if found is None:
        return None
    try:
        values = [_READ[found](name) for name in classes]
    except (ValueError, KeyError):
        return None
    # "007" is no text of a number.
    is_own = found == "number" or [str(value) for value in values] == list(classes)
    return found if is_own else None


def typed_labels(labels: Sequence[str | None], kind: LabelType | None) -> Any:
    """Return class labels in the type of the target column; None stays None."""
    if kind is None:
        return labels
    cells = pa.array(labels, pa.string()).dictionary_encode()
    values = [_READ[kind](name) for name in cells.dictionary.to_pylist()]
    if cells.null_count:
        return [None if at is None else values[at] for at in cells.indices.to_pylist()]
    dtype = {"integer": np.int64, "number": np.float64, "boolean": np.bool_}[kind]
    return np.array(values, dtype)[cells.indices.to_numpy()]


def with_typed_labels(
    columns: Mapping[str, Any], kinds: LabelType | Mapping[str, LabelType] | None
) -> Mapping[str, Any]:
    """Return columns of predictions with class labels in the type of the target column.

    Args:
        columns: The columns by name.
        kinds: The type, or the type for each of several targets.
    """
    found = dict(columns)
    if isinstance(kinds, Mapping):
        for name, kind in kinds.items():
            column = nested_name(name, "label")
            if column in found:
                found[column] = typed_labels(found[column], kind)
    elif "label" in found:
        found["label"] = typed_labels(found["label"], kinds)
    return found


def frame_like(items: Any, columns: Mapping[str, Any]) -> Any:
    """Return columns as a frame of the library of ``items``, with the index of a pandas frame.

    Frames of other libraries than pandas and polars give a ``pyarrow.Table``, and so do rows of
    such a frame. ``FrameRows`` of a pandas frame give a pandas frame.
    """
    if (index := _index_of(items)) is not None:
        items = index.to_series().to_frame()
    if hasattr(items, "iloc"):
        # A list, of which pandas infers the dtype of text.
        listed = {
            name: values.tolist()
            if isinstance(values, np.ndarray) and values.dtype.kind == "O"
            else values
            for name, values in columns.items()
        }
        return type(items)(listed, index=items.index)
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    return type(items)(table) if type(items).__module__.startswith("polars.") else table


def _index_of(items: Any) -> Any | None:
    """Return the index of rows of a pandas frame; None for anything else."""
    return items.frame.index if isinstance(items, FrameRows) else None
