"""Predictions as columns: one row per input, one column per field of a prediction.

Frames (pandas) are recognised by their attributes; pandas is never imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, cast

RESERVED = ("file", "item", "line", "row", "error")
"""Columns that the command line adds to a prediction: the source of the input, or the error."""


def is_frame(items: object) -> bool:
    """Return whether ``items`` is a frame or a series: rows with an index, as in pandas."""
    return all(hasattr(items, name) for name in ("index", "iloc", "to_dict"))


def rows_of(frame: Any) -> list[Any]:
    """Return the inputs in a frame: the values of a single column, else a dict by column per row.

    Args:
        frame: A series, or a frame; see ``is_frame``.
    """
    if not hasattr(frame, "columns"):
        return list(frame.tolist())
    names = list(frame.columns)
    if len(names) == 1:
        return list(frame[names[0]].tolist())
    return list(frame.to_dict("records"))


def collect(items: Any, outputs: Sequence[Any]) -> Any:
    """Return the predictions as a list or, if ``items`` is a frame, as a frame with its index.

    Args:
        items: The inputs: a frame, a series, or anything else.
        outputs: One prediction per input.
    """
    if not is_frame(items):
        return list(outputs)
    frame = items if hasattr(items, "columns") else items.to_frame()
    return type(frame)(columns_of(outputs), index=items.index)


def without_rows(items: Any, example: Any) -> Any:
    """Return a frame without rows that has the columns and dtypes of a prediction.

    Args:
        items: A frame or series without rows.
        example: A prediction.
    """
    frame = items if hasattr(items, "columns") else items.to_frame()
    return type(frame)(columns_of([example])).iloc[:0].set_axis(items.index)


def columns_of(outputs: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the fields of predictions as columns, with None if a prediction lacks a field.

    >>> columns_of([{"label": "ant"}, {"label": "bee", "score": 0.5}])
    {'label': ['ant', 'bee'], 'score': [None, 0.5]}
    """
    records = [fields_of(output) for output in outputs]
    names = dict.fromkeys(name for record in records for name in record)
    return {name: [record.get(name) for record in records] for name in names}


def nested_name(prediction: str, field: str) -> str:
    """Return the name of a field of a nested prediction among the fields of all.

    >>> nested_name("income", "label"), nested_name("price", "price")
    ('income.label', 'price')
    """
    return field if field == prediction else f"{prediction}.{field}"


def fields_of(prediction: Any) -> dict[str, Any]:
    """Return the fields of one prediction by name; a nested mapping is merged into them.

    A name of a nested mapping that is also a field, or in ``RESERVED``, is prefixed with the
    mapping's name: a class "label" in ``probabilities`` becomes "probabilities.label", and a class
    that has such a name already becomes "probabilities.probabilities.label". The fields of a nested
    prediction (a dataclass, as in the predictions of several targets) have its name as a prefix,
    "income.label", except for a field of the same name: "price", not "price.price". A prediction
    that is neither a dataclass nor a mapping has the single field "value", and an error the field
    "error".
    """
    if isinstance(prediction, Exception):
        return {"error": str(prediction)}
    if is_dataclass(prediction) and not isinstance(prediction, type):
        fields = asdict(prediction)
    elif isinstance(prediction, Mapping):
        fields = dict(cast("Mapping[str, Any]", prediction))
    else:
        return {"value": prediction}
    own = {name for name, value in fields.items() if not isinstance(value, Mapping)}
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if is_dataclass(value) and not isinstance(value, type):
            inner_fields = fields_of(value).items()
            found |= {nested_name(name, inner): part for inner, part in inner_fields}
            continue
        if not isinstance(value, Mapping):
            found[name] = value
            continue
        for inner, part in cast("Mapping[str, Any]", value).items():
            is_taken = inner in own or inner in RESERVED or inner.startswith(f"{name}.")
            found[f"{name}.{inner}" if is_taken else inner] = part
    return found
