"""``infer_kinds``: the kind of each column, inferred from the train rows or given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flambeau.errors import InputError, did_you_mean
from flambeau.wording import name_some
from flambeau_tabular.column_kind import ColumnKind, Kind
from flambeau_tabular.columns.cells import as_categories, canonical_text, is_text, value_type
from flambeau_tabular.columns.column_source import ColumnSource
from flambeau_tabular.columns.frames import Frame
from flambeau_tabular.columns.kind_rules import infer_kind
from flambeau_tabular.columns.memory import release_memory
from flambeau_tabular.columns.moments import describe_styles, find_style


def infer_kinds(
    table: ColumnSource | Frame,
    rows: NDArray[np.int64] | None = None,
    overrides: Mapping[str, str | Sequence[Any] | ColumnKind] | None = None,
) -> dict[str, ColumnKind]:
    """Return the kind of every column, inferred from the train rows only.

    Args:
        table: The columns, without the target.
        rows: Positions of the train rows; None for all.
        overrides: Kinds that are given, by column: the name of a kind; a list of values, for an
            ordered category in this order; "date:FORMAT" for dates in a ``strptime`` format; or
            "date:s" for whole seconds since 1970 (also ms, us, ns).

    Raises:
        InputError: The table has no rows or no columns, or an override names an unknown column or
            kind.

    Example:
        >>> table = pa.table({"size": ["S", "M", "S"], "price": [9.5, 12.0, 9.0]})
        >>> kinds = infer_kinds(table, overrides={"size": ["S", "M", "L"]})
        >>> kinds["size"].kind, kinds["size"].levels, kinds["price"].kind
        ('ordered', ('S', 'M', 'L'), 'number')
    """
    names = list(table.column_names)
    for name in overrides or {}:
        if name not in names:
            raise InputError(f"kinds names the column {name!r}. {did_you_mean(name, names)}")
    n = table.num_rows if rows is None else len(rows)
    if n == 0 or not names:
        what = "no input columns" if not names else "no rows" if rows is None else "no train rows"
        raise InputError(f"The table has {what}. Give a table with at least one column and row.")
    kinds = {}
    for name in names:
        cells = table.column(name)
        if rows is not None:
            train = np.zeros(len(cells), bool)
            train[rows] = True
            cells = cells.filter(pa.array(train))
        given = (overrides or {}).get(name)
        kinds[name] = infer_kind(name, cells) if given is None else _given(name, given, cells)
        del cells
        release_memory(n)
    return kinds


def _given(
    name: str, given: str | Sequence[Any] | ColumnKind, cells: pa.ChunkedArray
) -> ColumnKind:
    if isinstance(given, ColumnKind):
        return given
    if not isinstance(given, str):
        return _given_order(name, given)
    kind, _, style = given.partition(":")
    if kind not in get_args(Kind) or (style and kind != "date"):
        raise InputError(
            f"kinds[{name!r}] is {given!r}, which is no kind. Choose "
            f"{', '.join(map(repr, get_args(Kind)))}, or give a list of values in their order."
        )
    if kind == "date" and not style and is_text(value_type(cells)):
        style = _unique_style(name, cells)
    return ColumnKind(cast("Kind", kind), "set by kinds", style=style or "iso")


def _given_order(name: str, values: Sequence[Any]) -> ColumnKind:
    levels = [canonical_text(value) for value in values]
    if len(levels) < 2 or None in levels or len(set(levels)) < len(levels):
        raise InputError(
            f"kinds[{name!r}] is {list(values)!r:.80}. The order of a category needs at least two "
            "different values, none of them missing."
        )
    shown = name_some(levels, 8)
    return ColumnKind(
        "ordered", f"order set by kinds: {shown}", levels=tuple(cast("list[str]", levels))
    )


def _unique_style(name: str, cells: pa.ChunkedArray) -> str:
    _, texts = as_categories(cells)
    styles = find_style(text for text in texts if text is not None)
    if len(styles) > 1:
        raise InputError(
            f"Column {name!r} is a date in several possible forms: {name_some(styles)}. Choose "
            f"one: {describe_styles(name, styles)}."
        )
    # Without a style, reading as ISO 8601 names the first cell that is not a date.
    return styles[0] if styles else "iso"
