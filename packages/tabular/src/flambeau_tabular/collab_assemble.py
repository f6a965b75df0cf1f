"""From a table to the arguments of ``CollabData``: columns, repeated pairs, split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.data.float_dtype import to_default_dtype
from flambeau.data.part_columns import read_part_column
from flambeau.data.row_codes import number_times
from flambeau.data.split import Rows, Split
from flambeau.data.split_request import SplitRequest, rows_by_part
from flambeau.errors import ArgumentError, InputError, SplitError
from flambeau_tabular.assemble import with_separate_parts
from flambeau_tabular.collab_options import CollabColumns, CollabOptions
from flambeau_tabular.collab_preprocess import complete
from flambeau_tabular.columns import Frame
from flambeau_tabular.columns.cells import as_categories, as_numbers
from flambeau_tabular.options import TabularOptions
from flambeau_tabular.structure import Structure


@dataclass(frozen=True, eq=False)
class Interactions:
    """The rows of a table of ratings.

    Attributes:
        frame: The columns of users and items.
        users: Number of the user of each row, int64 ``(n,)``, from 0 on.
        items: Number of its item, likewise.
        ratings: The ratings, ``(n,)``; None for implicit feedback.
    """

    frame: Frame
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: Tensor | None

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray[np.int64]) -> Interactions:
        """Return these rows."""
        if len(rows) == len(self):
            return self  # all rows in their order: only rows are left out, none is moved
        return Interactions(
            self.frame.take(rows),
            self.users[rows],
            self.items[rows],
            None if self.ratings is None else self.ratings[torch.from_numpy(rows)],
        )


def assemble_ratings(
    frame: Frame, columns: CollabColumns, request: SplitRequest, options: CollabOptions
) -> dict[str, Any]:
    """Return the arguments of ``CollabData``.

    Raises:
        InputError: A column is missing or its cells cannot be used.
        SplitError: The parts cannot be formed.
    """
    frame, given = with_separate_parts(frame, request)
    for name in columns.by_role().values():
        frame.column(name)  # raises for a column that does not exist
    if not len(frame):
        raise InputError("The table has no rows. Give rows with a user and an item.")
    if request.column is not None:
        cells = frame.column(request.column).to_pylist()
        found = rows_by_part(read_part_column(cells, request.column, frame.name))
        given = {**given, **found}
    n = len(frame)
    found = _read(frame, columns)
    times = Structure.of(frame, TabularOptions(time=columns.time)).times
    order = np.arange(n) if times is None else number_times(times)[0]
    rated, notes = np.arange(n), list[str]()
    if found.ratings is not None:
        rated, notes = _rated(found.ratings, columns.rating or "")
    kept, repeats = _without_repeats(found.take(rated), order[rated], rated, options)
    usable = rated[kept]
    found, order = found.take(usable), order[usable]
    times = None if times is None else times[usable]
    split = _split(found, order, times, usable, n, given, request, options)
    return {
        "interactions": found,
        "split": split,
        "columns": columns,
        "options": options,
        "notes": (*notes, *repeats, *split.notes),
    }


def _read(frame: Frame, columns: CollabColumns) -> Interactions:
    users, items = (
        _numbered(frame, name, role)
        for name, role in ((columns.user, "user"), (columns.item, "item"))
    )
    ratings = None
    if columns.rating is not None:
        numbers = as_numbers(frame.column(columns.rating), columns.rating)
        infinite = np.flatnonzero(np.isinf(numbers))
        if len(infinite):
            raise InputError(
                f"The rating {columns.rating!r} is infinite in {len(infinite):,} rows, the first "
                f"is row {infinite[0]}. Correct these cells or drop the rows."
            )
        ratings = to_default_dtype(torch.from_numpy(np.array(numbers)))
    others = [each for each in frame.column_names if each not in (columns.user, columns.item)]
    return Interactions(frame.drop(others), users, items, ratings)


def _numbered(frame: Frame, name: str, role: str) -> NDArray[np.int64]:
    codes, texts = as_categories(complete(frame, name, role))
    # Values of equal text are one user: 1 and 1.0.
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return np.array([numbers[text] for text in texts], dtype=np.int64)[codes]


def _rated(ratings: Tensor, name: str) -> tuple[NDArray[np.int64], list[str]]:
    """Return the rows with a rating, and a note about the others."""
    missing = ratings.isnan().numpy()
    kept, n = np.flatnonzero(~missing), int(missing.sum())
    if not len(kept):
        raise InputError(
            f"The rating {name!r} is missing in all {n:,} rows. Give rows with a rating, or omit "
            "rating=… if the rows say only which items a user chose."
        )
    first = int(missing.argmax())
    note = f"{n:,} rows without a rating are left out (the first is row {first})"
    return kept, [note] if n else []


def _without_repeats(
    found: Interactions,
    order: NDArray[np.int64],
    row_numbers: NDArray[np.int64],
    options: CollabOptions,
) -> tuple[NDArray[np.int64], list[str]]:
    """Return the rows to keep, ascending, and a note if pairs are repeated."""
    everything = np.arange(len(found))
    pairs = found.users * (int(found.items.max()) + 1) + found.items
    by_time = np.lexsort((everything, order, pairs))
    is_first = np.r_[True, np.diff(pairs[by_time]) != 0]
    n = len(found) - int(is_first.sum())
    if not n:
        return everything, []
    again = int(row_numbers[by_time[~is_first].min()])
    what = f"{n:,} rows repeat a user and an item (such as row {again})"
    which = options.repeats or ("first" if found.ratings is None else "last")
    if which == "all":
        return everything, [f"{what}; all are kept"]
    is_kept = is_first if which == "first" else np.r_[is_first[1:], True]
    return np.sort(by_time[is_kept]), [f'{what}: the {which} is kept; repeats="all" keeps all']


def _split(
    found: Interactions,
    order: NDArray[np.int64],
    times: Any | None,
    usable: NDArray[np.int64],
    n: int,
    given: Mapping[str, Rows],
    request: SplitRequest,
    options: CollabOptions,
) -> Split:
    kept = usable if len(usable) < n else None
    if options.leave_last is None:
        return request.resolve(n, kept=kept, given=dict(given) or None, times=times)
    if given or request.split is not None:
        raise ArgumentError(
            f"leave_last={options.leave_last!r} takes the last rows of each user, so it cannot be "
            "combined with split=… or separate frames. Omit one of them."
        )
    parts = _last_rows(found.users, order, options.leave_last)
    if not all(len(rows) for rows in parts.values()):
        least = len(parts) + 1
        raise SplitError(
            f"leave_last={options.leave_last!r} needs users with at least {least} rows, but no "
            "user has as many. Use a random split: omit leave_last."
        )
    inputs = {part: usable[rows] for part, rows in parts.items()}
    split = request.resolve(n, kept=kept, given=inputs)
    return replace(split, method=f"the last rows of each user are in {' and '.join(parts)}")


def _last_rows(
    users: NDArray[np.int64], order: NDArray[np.int64], until: str
) -> dict[str, NDArray[np.int64]]:
    """Return the last rows of each user by part."""
    parts: Sequence[str] = ("valid",) if until == "valid" else ("test", "valid")
    by_user = np.lexsort((np.arange(len(users)), order, users))
    counts = np.bincount(users)
    ends = np.cumsum(counts)[counts > len(parts)]
    found = {part: np.sort(by_user[ends - 1 - back]) for back, part in enumerate(parts)}
    return {part: found[part] for part in ("valid", "test") if part in found}
