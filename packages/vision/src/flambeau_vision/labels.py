"""Labels as they are written down, to targets and the task they speak of."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.data.split import Rows
from flambeau.errors import InputError

Kind = Literal["classification", "multi_label", "regression"]


@dataclass(frozen=True)
class Targets:
    """What the model is to answer.

    Attributes:
        kind: The task.
        values: int64 ``(n,)`` for classification; float32 ``(n, classes)`` of 0 and 1 for several
            labels; float32 ``(n,)`` or ``(n, values)`` for numbers.
        names: Classes, or names of the numbers.
        reason: What was seen in the labels, in words.
    """

    kind: Kind
    values: Tensor
    names: tuple[str, ...]
    reason: str

    def select(self, rows: Rows) -> Targets:
        """The targets of ``rows``, in their order."""
        return replace(self, values=self.values[torch.from_numpy(np.array(rows))])

    def counts(self) -> Mapping[str, int]:
        """Rows with each class, in the order of ``names``; empty for numbers."""
        if self.kind == "regression":
            return {}
        if self.kind == "classification":
            counts = torch.bincount(self.values, minlength=len(self.names))
        else:
            counts = self.values.sum(dim=0).long()
        return dict(zip(self.names, counts.tolist(), strict=True))

    def text(self, row: int) -> str:
        """The label of one row as one reads it."""
        value = self.values[row]
        if self.kind == "classification":
            return self.names[int(value)]
        if self.kind == "multi_label":
            tags = [name for name, on in zip(self.names, value.tolist(), strict=True) if on]
            return ", ".join(tags) or "(none)"
        return ", ".join(f"{number:g}" for number in value.reshape(-1).tolist())


def read_labels(
    labels: Sequence[Any] | NDArray[Any] | Tensor,
    *,
    task: Kind | None = None,
    classes: Sequence[str] | None = None,
    sep: str | None = None,
    sources: Sequence[str] | None = None,
) -> Targets:
    """Labels to targets; the task follows from their type.

    Text, whole numbers and bool are classes; floats (or lists of floats) are numbers; lists of
    text, or text with ``sep`` between tags, are several labels for one picture.

    Args:
        labels: One entry a sample.
        task: The task where the type does not say it (whole numbers that are amounts).
        classes: All classes, in the order that the model's outputs shall have. For whole numbers
            that are no names of these, their names in the order 0, 1, ….
        sep: What stands between tags.
        sources: How messages call a row; its number by default.

    Raises:
        InputError: A label is missing, of another type than the others, or none of ``classes``;
            the message names the row.

    Example:
        >>> read_labels(["bee", "ant", "bee"]).values.tolist()
        [1, 0, 1]
    """
    where = _Rows(sources)
    values = plain_list(labels)
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    if not values:
        raise InputError("There are no labels: give one a picture.")
    for row, value in enumerate(values):
        if _is_missing(value) and not (sep is not None and value == ""):  # no tag at all
            raise InputError(
                f"The label of {where(row)} is missing ({value!r}). Fill it in, or drop the row."
            )
    kinds = {_kind(value, sep) for value in values}
    kind = task or (kinds.pop() if len(kinds) == 1 else None)
    if kind is None:
        first = {_kind(value, sep): row for row, value in reversed(list(enumerate(values)))}
        seen = "; ".join(f"{where(row)} has {values[row]!r}" for row in sorted(first.values()))
        raise InputError(f"The labels are of several kinds: {seen}. Use one kind for all rows.")
    if kind == "regression":
        return _numbers(values, classes, where)
    if kind == "multi_label":
        return _tags([_split_tags(value, sep) for value in values], classes, where)
    return _classes(values, classes, where)


def plain_list(labels: Any) -> list[Any]:
    """A list, whether it was a tensor, an array or a sequence."""
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    return labels.tolist() if isinstance(labels, np.ndarray) else list(labels)


@dataclass(frozen=True)
class _Rows:
    sources: Sequence[str] | None

    def __call__(self, row: int) -> str:
        return f"row {row}" if self.sources is None else f"row {row} ({self.sources[row]})"


def _is_missing(value: Any) -> bool:
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    # pandas' missing values, by name: they cannot be compared, and pandas is no dependency.
    return (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in (
        "NAType",
        "NaTType",
    )


def _kind(value: Any, sep: str | None) -> Kind:
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        inner = list(value)
        numbers = inner and all(isinstance(v, float | np.floating) for v in inner)
        return "regression" if numbers else "multi_label"
    if isinstance(value, float):
        return "regression"
    return "multi_label" if sep is not None and isinstance(value, str) else "classification"


def _split_tags(value: Any, sep: str | None) -> list[str]:
    if isinstance(value, str):
        parts = value.split(sep) if sep is not None else [value]
        return [part.strip() for part in parts if part.strip()]
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [str(part) for part in value]
    return [str(value)]


def _numbers(values: list[Any], names: Sequence[str] | None, where: _Rows) -> Targets:
    try:
        array = torch.tensor(np.array(values, dtype=np.float64), dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The labels are to be numbers, and not all can be read as such ({error}). Give a "
            "number a row, or the same count of numbers in every row."
        ) from error
    finite = torch.isfinite(array.reshape(len(values), -1)).all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise InputError(f"The label of {where(row)} is {values[row]!r}, which is not finite.")
    width = 1 if array.ndim == 1 else array.shape[-1]
    if names is None:
        names = ("value",) if array.ndim == 1 else tuple(f"value_{i}" for i in range(width))
    if len(names) != width:
        raise InputError(f"{width} numbers a row, but {len(names)} names: {', '.join(names)}.")
    low, high = float(array.min()), float(array.max())
    reason = f"the labels are numbers from {low:g} to {high:g}"
    return Targets("regression", array, tuple(names), reason)


def _classes(values: list[Any], classes: Sequence[str] | None, where: _Rows) -> Targets:
    found = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    written = "text" if isinstance(found[0], str) else type(found[0]).__name__
    reason = f"{len(found):,} distinct labels ({written}) in {len(values):,} rows"
    if classes is None:
        place = {value: number for number, value in enumerate(found)}
        names = tuple(_name(value) for value in found)
    else:
        names = tuple(map(str, classes))
        by_number = not any(_name(value) in names for value in found)
        place = {value: value for value in found} if by_number else {}
        if not by_number:
            place = {v: names.index(_name(v)) for v in found if _name(v) in names}
    for row, value in enumerate(values):
        number = place.get(value)
        if not isinstance(number, int) or not 0 <= number < len(names):
            raise InputError(
                f"The label of {where(row)} is {value!r}, which is none of the {len(names)} "
                f"classes: {', '.join(names[:20])}."
            )
    if len(names) < 2:
        raise InputError(
            f"All {len(values):,} labels are {values[0]!r}: with one class there is nothing to "
            "learn. Give pictures of another class too."
        )
    numbers = torch.tensor([place[value] for value in values], dtype=torch.int64)
    return Targets("classification", numbers, names, reason)


def _tags(tags: list[list[str]], classes: Sequence[str] | None, where: _Rows) -> Targets:
    found = Counter(tag for row in tags for tag in row)
    names = tuple(map(str, classes)) if classes is not None else tuple(sorted(found))
    place = {name: number for number, name in enumerate(names)}
    values = torch.zeros(len(tags), len(names))
    for row, row_tags in enumerate(tags):
        for tag in row_tags:
            if tag not in place:
                raise InputError(
                    f"{where(row)} has the label {tag!r}, which is none of the {len(names)} "
                    f"classes: {', '.join(names[:20])}."
                )
            values[row, place[tag]] = 1.0
    if not names:
        raise InputError("No row has a label.")
    mean = found.total() / len(tags)
    reason = f"{len(names):,} labels, {mean:.2f} a picture on average in {len(tags):,} rows"
    return Targets("multi_label", values, names, reason)


def _name(value: Any) -> str:
    # Whole numbers that came as floats (a CSV column with task="classification") lose the ".0".
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)
