"""Names whose order has a meaning: the names of classes, of targets, of the model's inputs."""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, cast

import numpy as np

from flambeau.data.tables import to_list
from flambeau.errors import ArgumentError, InputError
from flambeau.wording import name_some


def ordered_names(
    names: Sequence[str] | Mapping[Any, Any], argument: str, number: str = "class"
) -> tuple[str, ...]:
    """Return names as text, in the order of the numbers that they name.

    Args:
        names: A list, array or column of names; or a dict, from numbers 0, 1, … to names or from
            names to these numbers.
        argument: Name of the argument, for messages.
        number: What a name stands for, for messages.

    Raises:
        ArgumentError: The names are a set, whose order is random, or a single value.
        InputError: A name is missing or occurs twice, or a dict does not number the names.

    Example:
        >>> ordered_names({"bee": 1, "ant": 0}, "class_names")
        ('ant', 'bee')
    """
    values = in_order(names, argument, number)
    for position, value in enumerate(values):
        if value is None or value != value:  # noqa: PLR0124  NaN differs from itself
            raise InputError(
                f"{argument} has {value!r} in position {position}. Give every {number} a name."
            )
    texts = tuple(map(_as_text, values))
    check_distinct(texts, argument)
    return texts


def ordered_categories(values: object) -> tuple[str, ...] | None:
    """Return the names of the categories of a column in their order, without those that no row has.

    Args:
        values: The column; an ordered categorical of pandas, or an ``Enum`` of polars, has an
            order.

    Returns:
        None if the column has no order of its own.
    """
    kind = getattr(values, "dtype", None)
    categories = getattr(kind, "categories", None)
    is_enum = type(kind).__name__ == "Enum"  # of polars
    if categories is None or not (is_enum or getattr(kind, "ordered", False)):
        return None
    found = set(to_list(cast("Any", values).unique()))
    return ordered_names([each for each in categories if each in found], "the categories")


def ordered_columns(source: Any, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the ordered categories of the columns that have an order, by the name of the column.

    Args:
        source: A mapping of columns, or a frame of pandas or polars; other frames have none.
        names: Names of the columns.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name in names if isinstance(source, Mapping) or hasattr(source, "dtypes") else ():
        try:
            order = ordered_categories(cast("Any", source)[name])
        except (KeyError, TypeError):  # a name that is not text in the frame
            continue
        if order is not None:
            found[name] = order
    return found


def check_distinct(names: Sequence[str], argument: str) -> None:
    """Raise an ``InputError`` if a name occurs twice."""
    if len(set(names)) < len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise InputError(
            f"{argument} has the name {twice!r} twice, so it is ambiguous. Give distinct names."
        )


def in_order(names: object, argument: str, number: str = "class") -> list[Any]:
    """Return names as a list in their order; see ``ordered_names``, which also checks each name."""
    if isinstance(names, str | bytes):
        raise ArgumentError(
            f"{argument}={names!r} is a single string. Give a list with one name per {number}."
        )
    if isinstance(names, Mapping):
        return _numbered(cast("Mapping[Any, Any]", names), argument, number)
    if isinstance(names, AbstractSet) and not isinstance(names, KeysView):
        found = name_some(sorted(map(repr, cast("AbstractSet[Any]", names))))
        raise ArgumentError(
            f"{argument} is a {type(cast('object', names)).__name__}, which has no order ({found}),"
            f" so it is unknown which {number} has which name. Give a list: {argument}=[{found}]."
        )
    if not isinstance(names, Iterable) or getattr(cast("Any", names), "ndim", 1) != 1:
        raise ArgumentError(
            f"{argument} is {names!r:.60}, of type {type(cast('object', names)).__name__}. Give a "
            f"list with one name per {number}."
        )
    return to_list(cast("Any", names))


def _numbered(names: Mapping[Any, Any], argument: str, number: str) -> list[Any]:
    """Return the names in a dict from numbers to names, or from names to numbers."""
    keys, values = list(names), list(names.values())
    by_key, by_value = _is_numbering(keys), _is_numbering(values)
    if by_key and (not by_value or keys == values):
        return [names[key] for key in sorted(keys)]
    if by_value and not by_key:
        return sorted(keys, key=names.__getitem__)
    why = "both its keys and its values are these numbers" if by_key else "it has other numbers"
    raise InputError(
        f"{argument} is the dict {dict(names)!r:.100}. A dict must number the names from 0 to "
        f"{len(names) - 1}, as its keys or as its values; {why}. Give a list with one name per "
        f"{number}."
    )


def _is_numbering(values: Sequence[Any]) -> bool:
    kinds = (int, np.integer)
    whole = all(isinstance(value, kinds) and not isinstance(value, bool) for value in values)
    return whole and sorted(values) == list(range(len(values)))


def _as_text(value: Any) -> str:
    from flambeau.data.label_scalars import class_name

    return class_name(value)
