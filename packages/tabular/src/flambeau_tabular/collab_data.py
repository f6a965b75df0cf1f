"""``CollabData``: which users rated or chose which items, and all data choices, in one object."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch

from flambeau.data.data import Data, digest, select_values
from flambeau.data.loader import Dataset
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.split import PARTS, Split
from flambeau.data.split_request import SplitRequest
from flambeau.errors import ArgumentError, InputError, explains_arguments
from flambeau.task.named_losses import loss_arguments
from flambeau.tensors.base_data import describe_target
from flambeau_tabular.collab_facts import CollabFacts
from flambeau_tabular.collab_options import CollabColumns, CollabOptions
from flambeau_tabular.collab_preprocess import CollabPreprocessor
from flambeau_tabular.collab_sampling import TARGET, Choices, SampledDataset, UnseenItems
from flambeau_tabular.frame_rows import FrameRows
from flambeau_tabular.models.category_embedding import FIRST_VALUE

if TYPE_CHECKING:
    from flambeau_tabular.collab_assemble import Interactions
    from flambeau_tabular.columns.category_column import CategoryColumn

CHOSEN = "chosen"
"""The name of the only label of implicit feedback."""


def _option_hint(name: str) -> str:
    known = name in CollabOptions.__dataclass_fields__
    return f"Set it with options=CollabOptions({name}=…)." if known else ""


@explains_arguments(_option_hint)
class CollabData(Data):
    """Ratings of items by users, or which items users chose, split into parts.

    Build it with ``from_df``, ``from_csv`` or ``from_parquet``. With ratings the task is
    regression. Without them (implicit feedback) each row is a positive, and in every epoch of train
    the items that the user did not choose in train are drawn anew as negatives; those of another
    part are drawn once, and also leave out what the user chose there.

    Args:
        interactions: The rows.
        split: The rows of the parts.
        columns: The columns of the table.
        options: How the table is read.
        notes: Notes for the report.

    Example:
        >>> rows = {"who": ["ann", "bob"] * 10, "what": [*range(20)], "stars": [1.0, 5.0] * 10}
        >>> CollabData.from_df(rows, user="who", item="what", rating="stars", valid=0.5)
        CollabData(20 ratings of 2 users and 20 items: 10 train, 10 valid, 0 test)
    """

    domain = "flambeau_tabular.collab_domain:COLLAB"

    def __init__(
        self,
        interactions: Interactions,
        split: Split,
        columns: CollabColumns,
        options: CollabOptions,
        notes: Sequence[str] = (),
    ) -> None:
        self._interactions = interactions
        self._split = split
        self._columns = columns
        self._options = options
        self._notes = tuple(notes)

    # ------------------------------------------------------------ constructors

    @classmethod
    def from_df(  # noqa: PLR0913 each part of the split is an argument
        cls,
        frame: Any,
        *,
        user: str,
        item: str,
        rating: str | None = None,
        time: str | None = None,
        valid: Any = 0.2,
        test: Any = 0.0,
        calibration: Any = 0.0,
        split: Any = None,
        seed: int = 0,
        options: CollabOptions | None = None,
    ) -> Self:
        """Read a frame of any library (pandas, polars, pyarrow, DuckDB) or a mapping of columns.

        Users and items are numbers or text, compared by value: 7, 7.0 and "7" are one user. Further
        columns are ignored.

        Args:
            frame: The table, one row for each rating or choice. It is not changed.
            user: Column of the users.
            item: Column of the items.
            rating: Column of the ratings; rows without one are left out and counted. None: implicit
                feedback.
            time: Column with the time of each row. The parts are then split by time, unless
                ``leave_last`` is set.
            valid: Size of the validation part: a fraction below 1 or a number of rows; 0 for none;
                or a separate frame.
            test: The same for the test part.
            calibration: The same for the part on which predictions are calibrated.
            split: A ``Split``, or the column with the part of each row.
            seed: Seed of a random split.
            options: Further options: ``CollabOptions(leave_last="valid")``, ….

        Raises:
            InputError: A column is missing or its cells cannot be used; the message names the
                column and the row.
            SplitError: The parts cannot be formed.
        """
        from flambeau_tabular.collab_assemble import assemble_ratings
        from flambeau_tabular.columns import read_frame

        columns = CollabColumns(user, item, rating, time)
        request = SplitRequest(valid, test, split, seed, False, calibration)
        found = assemble_ratings(read_frame(frame), columns, request, options or CollabOptions())
        return cls(**found)

    @classmethod
    def from_csv(  # noqa: PLR0913
        cls,
        path: str | os.PathLike[str],
        *,
        user: str,
        item: str,
        rating: str | None = None,
        time: str | None = None,
        valid: Any = 0.2,
        test: Any = 0.0,
        calibration: Any = 0.0,
        split: Any = None,
        seed: int = 0,
        options: CollabOptions | None = None,
    ) -> Self:
        """Read a CSV or TSV file, also compressed; for the other arguments see `from_df`.

        Raises:
            InputError: The file is missing or no table; further as `from_df`.
        """
        from flambeau_tabular.assemble import read_file
        from flambeau_tabular.collab_assemble import assemble_ratings

        columns = CollabColumns(user, item, rating, time)
        request = SplitRequest(valid, test, split, seed, False, calibration)
        frame = read_file(Path(path))
        return cls(**assemble_ratings(frame, columns, request, options or CollabOptions()))

    @classmethod
    def from_parquet(  # noqa: PLR0913
        cls,
        path: str | os.PathLike[str],
        *,
        user: str,
        item: str,
        rating: str | None = None,
        time: str | None = None,
        valid: Any = 0.2,
        test: Any = 0.0,
        calibration: Any = 0.0,
        split: Any = None,
        seed: int = 0,
        options: CollabOptions | None = None,
    ) -> Self:
        """Read a Parquet file; for the other arguments see `from_df`.

        Raises:
            InputError: The file is missing or no table; further as `from_df`.
        """
        from flambeau_tabular.assemble import read_file
        from flambeau_tabular.collab_assemble import assemble_ratings

        columns = CollabColumns(user, item, rating, time)
        request = SplitRequest(valid, test, split, seed, False, calibration)
        frame = read_file(Path(path))
        return cls(**assemble_ratings(frame, columns, request, options or CollabOptions()))

    # ------------------------------------------------------------ content

    def __repr__(self) -> str:
        rows = self._interactions
        what = "choices" if rows.ratings is None else "ratings"
        return (
            f"CollabData({len(rows):,} {what} of {len(np.unique(rows.users)):,} users and "
            f"{len(np.unique(rows.items)):,} items: {self._split.sizes()})"
        )

    @property
    def interactions(self) -> Interactions:
        """The rows that are used: users, items and ratings."""
        return self._interactions

    @property
    def split(self) -> Split:
        return self._split

    @property
    def columns(self) -> CollabColumns:
        """The columns of user, item, rating and time."""
        return self._columns

    @property
    def choices(self) -> Mapping[str, Any]:
        given = self._options.min_count
        return {} if given is None else {"min_count": given}

    @property
    def reading_options(self) -> Mapping[str, Any]:
        return self._columns.by_role()

    def facts(self) -> CollabFacts:
        rows, train = self._interactions, self._split.train
        facts: dict[str, Any] = {
            **{f"n_{part}": len(self._split.part(part)) for part in PARTS},
            "split": self._split.describe(),
            "in_memory": True,
            "feedback": "implicit" if rows.ratings is None else "ratings",
            "n_users": len(np.unique(rows.users[train])),
            "n_items": len(np.unique(rows.items[train])),
            "roles": self._columns.by_role(),
        }
        if rows.ratings is not None:
            facts |= describe_target(rows.ratings[torch.from_numpy(np.array(train))], None)
            for name in ("class_names", "class_counts"):  # whole numbers of stars are no classes
                facts.pop(name, None)
        return cast("CollabFacts", facts)

    def report(self) -> str:
        """Return a summary as text: rows, parts, and how many of them have unknown users."""
        rows, train = self._interactions, self._split.train
        lines = [repr(self), str(self._split)]
        for part in PARTS[1:]:
            held_out = self._split.part(part)
            if len(held_out):
                cold = [
                    int((~np.isin(numbers[held_out], numbers[train])).sum())
                    for numbers in (rows.users, rows.items)
                ]
                lines.append(
                    f"{part}: {cold[0]:,} of {len(held_out):,} rows have a user that is not in "
                    f"train, {cold[1]:,} an item that is not in train"
                )
        return "\n".join([*lines, *self._notes])

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of ``Data`` and a digest of the users and items of all rows."""
        rows = self._interactions
        return {
            **super().fingerprint(),
            "users": f"digest {digest(rows.users.tobytes())}",
            "items": f"digest {digest(rows.items.tobytes())}",
        }

    def raw(self, part: str) -> FrameRows:
        return FrameRows(self._interactions.frame.take(self._split.part(part)))

    def preview(self, row: int) -> Preview:
        """Return user and item of a row; a sample number above the rows is a drawn negative."""
        is_drawn = row >= len(self._interactions)
        cells = FrameRows(self._interactions.frame)[row % len(self._interactions)]
        user, item = cells[self._columns.user], cells[self._columns.item]
        if is_drawn:
            return Preview(f"user {user}, an item that was not chosen")
        return Preview(f"user {user}, item {item}")

    def is_loaded(self, part: str, values: Mapping[str, Any]) -> bool:
        return True

    def subset(self, rows: Mapping[str, Sequence[int]]) -> CollabData:
        """Return the data with only these rows in each part (row numbers of ``interactions``)."""
        parts = Split.from_parts(rows)
        return CollabData(self._interactions, parts, self._columns, self._options, self._notes)

    # ------------------------------------------------------------ from the plan

    def preprocessor(self, values: Mapping[str, Any]) -> Preprocessor:
        import pyarrow as pa

        from flambeau_tabular.columns.cells import value_type

        users = self._fitted(self._columns.user, values)
        items = self._fitted(self._columns.item, values)
        cells = self._interactions.frame.column(self._columns.item)
        found = CollabPreprocessor(users, items, whole_items=pa.types.is_integer(value_type(cells)))
        if self._options.store_seen:
            codes = found.codes(self._interactions.frame.take(self._split.train))
            found.seen = torch.unique(torch.stack([codes["users"], codes["items"]]), dim=1)
        return found

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        rows = np.array(self._split.part(part))
        if not len(rows):
            raise InputError(f"There are no {part} rows. Pass {part}= to the constructor.")
        found = _checked(preprocessor)
        inputs = found.codes(self._interactions.frame.take(rows))
        ids = torch.from_numpy(rows)
        ratings = self._interactions.ratings
        if ratings is not None:
            return MemoryDataset(inputs, {TARGET: ratings[ids]}, ids)
        choices = Choices(
            inputs,
            self._interactions.users[rows],
            ids,
            len(self._interactions),
            self._unseen(found, ("train", part)),
            int(values.get("n_negatives") or 1),
        )
        # Scores of two epochs are comparable only on the same negatives.
        return SampledDataset(choices) if part == "train" else choices.samples(0, 0)

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        found = _checked(preprocessor)
        bounds = values.get("y_range")
        if bounds is not None and values.get("targets") != "as_is":
            mean, std = self._scale()
            bounds = [(bound - mean) / std for bound in bounds]
        arguments = {
            "n_users": found.users.cardinality,
            "n_items": found.items.cardinality,
            "y_range": bounds,
        }
        if values.get("architecture") == "collab_dot":
            arguments |= select_values(values, "n_factors")
        return arguments

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        metrics = select_values(values, "metrics")
        if self._columns.rating is None:
            return {"classes": [CHOSEN], **metrics}
        arguments = {"names": [self._columns.rating], **metrics, **loss_arguments(values)}
        mean, std = self._scale()
        if values.get("targets") == "as_is":
            return arguments
        return {**arguments, "mean": [mean], "std": [std]}

    # ------------------------------------------------------------ internal

    def _fitted(self, name: str, values: Mapping[str, Any]) -> CategoryColumn:
        from flambeau_tabular.columns.category_column import CategoryColumn

        cells = self._interactions.frame.column(name)
        least = int(values.get("min_count") or 1)
        found = CategoryColumn.fit(name, cells, self._split.train, "category", min_count=least)
        if not found.values:
            raise InputError(
                f"No value of {name!r} has {least:,} train rows, so all are unknown. Choose a "
                "lower min_count."
            )
        return found

    def _unseen(self, preprocessor: CollabPreprocessor, parts: Sequence[str]) -> UnseenItems:
        """Return what draws items that a user did not choose in these parts."""
        rows = np.concatenate([self._split.part(part) for part in dict.fromkeys(parts)])
        items = preprocessor.codes(self._interactions.frame.take(rows))["items"].numpy()
        known = items >= FIRST_VALUE
        users = self._interactions.users[rows][known]
        return UnseenItems(users, items[known].astype(np.int64) - FIRST_VALUE, preprocessor.n_items)

    def _scale(self) -> tuple[float, float]:
        ratings = cast("torch.Tensor", self._interactions.ratings)
        train = ratings[torch.from_numpy(np.array(self._split.train))].double()
        mean, std = float(train.mean()), float(train.std(correction=0))
        if not std > 0:
            raise InputError(
                f"The rating {self._columns.rating!r} is {mean:g} in all {len(train):,} train "
                "rows, so there is nothing to learn. If the rows only say which items a user "
                "chose, omit rating=…: items that were not chosen are then drawn as negatives."
            )
        return mean, std


def _checked(preprocessor: Preprocessor) -> CollabPreprocessor:
    if not isinstance(preprocessor, CollabPreprocessor):
        raise ArgumentError(
            f"CollabData needs a CollabPreprocessor, not a {type(preprocessor).__name__}."
        )
    return preprocessor
