"""``Targets``: labels as tensors, with the task that follows from their type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.data.class_labels import number_labels
from flambeau.data.facts import IGNORED
from flambeau.data.float_dtype import to_default_dtype
from flambeau.data.known_classes import name_as_in
from flambeau.data.label_rows import (
    NumberRows,
    class_numbers,
    column_names,
    list_labels,
    read_number_rows,
    read_task_of_rows,
)
from flambeau.data.label_scalars import (
    SEQUENCES,
    class_name,
    is_missing,
    to_python,
    unusable_reason,
)
from flambeau.data.label_values import (
    doubts_about_names,
    doubts_about_values,
    has_decimal_commas,
)
from flambeau.data.ordered_names import ordered_categories, ordered_names
from flambeau.data.readable_arrays import refuse_masked
from flambeau.data.reading import Reading
from flambeau.data.split import PARTS, Rows, Split
from flambeau.data.tables import to_list
from flambeau.errors import InputError, SplitError
from flambeau.wording import name_some

Kind = Literal["classification", "multi_label", "regression"]

_NUMPY_SCALARS: tuple[type[Any], ...] = (np.number, np.bool_, np.str_)
_FEW = 20  # distinct numbers that may be classes


@dataclass(frozen=True)
class Targets:
    """The targets of a data set.

    Attributes:
        kind: The task.
        values: int64 ``(n,)`` for classification, or the smallest type that holds all classes
            (``compact``), and -100 for a row without a label; float32 ``(n, classes)`` of 0 and 1
            for multi-label; ``(n,)`` or ``(n, values)`` for regression, in torch's default dtype
            or, if this would merge distinct values, float64.
        names: Class names, or names of the regression targets.
        reason: The property of the labels that decided the task, for messages.
        readings: How ambiguous labels were interpreted.
    """

    kind: Kind
    values: Tensor
    names: tuple[str, ...]
    reason: str
    readings: tuple[Reading, ...] = ()

    def select(self, rows: Rows) -> Targets:
        """Return the targets of ``rows``, in the order of ``rows``."""
        return replace(self, values=self.values[torch.as_tensor(rows)])

    def of(self, rows: Rows | None = None) -> Tensor:
        """Return the values of ``rows`` (None: all) as they are in batches: classes are int64."""
        values = self.values if rows is None else self.values[torch.as_tensor(rows)]
        return values.long() if self.kind == "classification" else values

    def missing(self, rows: Rows | None = None) -> NDArray[np.bool_]:
        """Return which of ``rows`` (None: all) have no label (-100) or number (NaN), ``(n,)``."""
        values = self.values if rows is None else self.values[torch.as_tensor(rows)]
        if self.kind == "classification":
            return np.asarray((values < 0).numpy())
        missing = values.isnan()
        return np.asarray((missing if missing.ndim == 1 else missing.flatten(1).any(1)).numpy())

    def compact(self) -> Targets:
        """Return targets whose class numbers are int8, int16 or int32; others are unchanged."""
        if self.kind != "classification":
            return self
        return replace(self, values=self.values.to(smallest_integer(len(self.names))))

    def _classes_of(self, rows: Rows) -> set[int]:
        """Return the class numbers of ``rows``."""
        numbers = self.values[torch.as_tensor(rows)]
        return set(to_list(torch.bincount(numbers[numbers >= 0]).nonzero().flatten()))

    def counts(self) -> Mapping[str, int]:
        """Return the number of rows of each class, in the order of ``names``.

        Empty for regression.
        """
        if self.kind == "regression":
            return {}
        if self.kind == "classification":
            counts = torch.bincount(self.values[self.values >= 0], minlength=len(self.names))
        else:
            counts = self.values.sum(dim=0).long()
        return dict(zip(self.names, to_list(counts), strict=True))

    def check_split(self, split: Split, samples: str = "samples") -> None:
        """Check that every class with samples in another part has samples in train.

        Args:
            split: A split of the rows of these targets.
            samples: What a row is, in the plural, for the message.

        Raises:
            SplitError: A class has no samples in train; the message names the classes.
        """
        if self.kind != "classification":
            return
        in_train = self._classes_of(split.train)
        for part in PARTS[1:]:
            if unseen := sorted(self._classes_of(split.part(part)) - in_train):
                names = name_some((self.names[number] for number in unseen), most=10)
                raise SplitError(
                    f"{len(unseen)} {'class has' if len(unseen) == 1 else 'classes have'} "
                    f"{samples} in {part} but none in train: {names}. The model cannot learn them. "
                    f"Move some of their {samples} to train, or list the classes to use: "
                    "classes=[…], on the command line --classes."
                )

    def text(self, row: int) -> str:
        """Return the label of one row as text."""
        value = self.values[row]
        if self.kind == "classification":
            return self.names[int(value)] if value >= 0 else "(none)"
        if self.kind == "multi_label":
            tags = [name for name, on in zip(self.names, to_list(value), strict=True) if on]
            return ", ".join(tags) or "(none)"
        return ", ".join(f"{number:g}" for number in to_list(value.reshape(-1)))


def smallest_integer(n: int) -> torch.dtype:
    """Return the smallest signed type of torch that holds 0..n and negative numbers.

    Signed, because torch reads an index of uint8 as a mask.
    """
    return torch.int8 if n < 2**7 else torch.int16 if n < 2**15 else torch.int32


def read_labels(
    labels: Sequence[Any] | NDArray[Any] | Tensor,
    *,
    task: Kind | None = None,
    classes: Sequence[str] | None = None,
    sep: str | None = None,
    sources: Sequence[str] | None = None,
) -> Targets:
    """Convert labels to targets and infer the task from their type.

    Text, whole numbers and bool are classes; floats (or lists of floats) are regression targets;
    lists of text, or text with ``sep`` between the labels, are multi-label targets. Columns of 0
    and 1 are one-hot classes if every row has exactly one 1, else multi-label targets; ``(n, 1)``
    is read as ``(n,)``.

    Args:
        labels: One entry per sample: a sequence, an array or tensor ``(n,)`` or ``(n, k)``, or a
            frame, whose columns name the classes. The classes of an ordered categorical column
            keep its order; others are sorted.
        task: The task, if it does not follow from the type (whole numbers as regression targets).
        classes: All classes, in the order of the model's outputs (and of the columns of labels
            ``(n, k)``). Whole numbers that are not in this list are indices into it.
        sep: Separator between several labels of one sample.
        sources: Names of the rows for messages; by default only their numbers.

    Raises:
        InputError: A label is missing, of another type than the others, or not in ``classes``;
            the message names the row. Or the labels are a single value.

    Example:
        >>> read_labels(["bee", "ant", "bee"]).values.tolist()
        [1, 0, 1]
    """
    row_name = _RowName(sources)
    refuse_masked("The array of labels", labels)
    if classes is not None:
        classes = ordered_names(classes, "classes")
    elif task in (None, "classification") and sep is None:
        classes = ordered_categories(labels)
        task = task if classes is None else "classification"
    use_times = task in ("classification", "multi_label") or classes is not None
    entries, columns = list_labels(labels)
    values = [to_python(value) for value in entries]
    if not values:
        raise InputError("There are no labels. Give one label per sample.")
    for row, value in enumerate(values):
        if is_missing(value) and not (sep is not None and value == ""):  # "" has no labels
            raise InputError(
                f"The label of {row_name(row)} is missing ({value!r}). Add it, or remove the row."
            )
        if reason := unusable_reason(value, times=use_times):
            raise InputError(f"The label of {row_name(row)} {reason}.")
    rows = read_number_rows(values)
    if rows is not None and (rows.values.shape[1] > 1 or task == "multi_label"):
        names = columns if classes is None else classes
        if (targets := _read_columns(rows, names, task, row_name)) is not None:
            return targets
    elif rows is not None:
        values = [to_python(value[0]) for value in values]
    kinds = {_kind(value, sep) for value in values}
    kind = task or (kinds.pop() if len(kinds) == 1 else None)
    if kind is None:
        first = {_kind(value, sep): row for row, value in reversed(list(enumerate(values)))}
        seen = "; ".join(f"{row_name(row)} has {values[row]!r}" for row in sorted(first.values()))
        raise InputError(f"The labels have several types: {seen}. Use one type for all rows.")
    if task is None and classes is None:
        _refuse_ignored_label(values, row_name)
    if task is None and classes is None and _has_negative(values):
        kind = "regression"
    if kind == "regression":
        targets = _read_numbers(values, classes, row_name)
    elif kind == "multi_label":
        targets = _read_tags(split_tags(values, sep, row_name), classes, row_name)
    else:
        targets = _read_classes(values, classes, row_name)
    doubts = doubts_about_names(targets.names)
    if task is None and classes is None and kind != "multi_label":
        doubts += doubts_about_values(values, kind)
    return replace(targets, readings=tuple(doubts))


def _has_negative(values: Sequence[Any]) -> bool:
    """Return whether all labels are whole numbers, and one is below -1: not class numbers."""
    return all(type(value) is int for value in values) and min(values) < -1


def _refuse_ignored_label(values: Sequence[Any], row_name: _RowName) -> None:
    """Raise an InputError if the labels look like class numbers and the ignored label -100."""
    if not all(type(value) is int or isinstance(value, float) for value in values):
        return
    others = set(values) - {IGNORED}
    few = len(others) < len(set(values)) <= _FEW
    if not few or not others or min(others) < 0 or any(value % 1 for value in others):
        return
    raise InputError(
        f"The label of {row_name(values.index(IGNORED))} is {IGNORED}, which torch's cross entropy "
        f"ignores, and the others are from {min(others):g} to {max(others):g}. If it marks rows "
        f"without a label, remove these {values.count(IGNORED):,} rows. If the labels are "
        'measurements, give task="regression".'
    )


def _read_columns(
    rows: NumberRows, names: Sequence[str] | None, task: Kind | None, row_name: _RowName
) -> Targets | None:
    """Return the targets in rows of numbers; None if they are lists of tags or amounts."""
    reading = read_task_of_rows(rows, names)
    kind = task or (reading.evidence["task"] if reading is not None else None)
    readings = () if reading is None or task is not None else (reading,)
    if kind == "regression" and (rows.is_float or rows.are_arrays or task is not None):
        targets = _read_numbers(list(rows.values), names, row_name)
        return replace(targets, readings=readings)
    if kind is None or (kind == "multi_label" and not rows.is_binary):
        return None
    n, width = rows.values.shape
    found = column_names(width, names)
    if kind == "classification":
        numbers = torch.tensor(class_numbers(rows, row_name), dtype=torch.int64)
        reason = f"{n:,} one-hot rows of {width:,} columns"
        return Targets("classification", numbers, found, reason, readings)
    if not rows.ones.any():
        raise InputError("No row has a label. Give at least one label in at least one row.")
    reason = f"{width:,} columns of 0 and 1, {rows.ones.mean():.2f} ones per row in {n:,} rows"
    values = torch.tensor(rows.values, dtype=torch.float32)
    return Targets("multi_label", values, found, reason, readings)


@dataclass(frozen=True)
class _RowName:
    """A function that returns the name of a row for messages."""

    sources: Sequence[str] | None

    def __call__(self, row: int) -> str:
        return f"row {row}" if self.sources is None else f"row {row} ({self.sources[row]})"


def _kind(value: Any, sep: str | None) -> Kind:
    if isinstance(value, SEQUENCES):
        inner = list(cast("Iterable[Any]", value))
        numbers = inner and all(isinstance(v, float | np.floating) for v in inner)
        return "regression" if numbers else "multi_label"
    if isinstance(value, float):
        return "regression"
    return "multi_label" if sep is not None and isinstance(value, str) else "classification"


def split_tags(
    values: Sequence[Any], sep: str | None, row_name: Callable[[int], str]
) -> list[list[str]]:
    """Return the labels of each row as text.

    Args:
        values: A list, or text, for each row.
        sep: Separator between the labels in a text; None for a text that is one label.
        row_name: Name of a row, for the message.

    Raises:
        InputError: A label in a row is missing, or is a list; the message names the row.
    """
    rows: list[list[str]] = []
    for row, value in enumerate(values):
        if isinstance(value, str):
            texts = [value] if sep is None else value.split(sep)
            rows.append([text.strip() for text in texts if text.strip()])
            continue
        is_row = isinstance(value, SEQUENCES)
        parts = list(cast("Iterable[Any]", value)) if is_row else [value]
        if any(is_missing(to_python(part)) for part in parts):
            raise InputError(
                f"The labels of {row_name(row)} are {value!r:.60}, and one of them is missing. "
                "Remove it; a row without labels is an empty list."
            )
        if any(isinstance(part, SEQUENCES) for part in parts):
            raise InputError(
                f"The labels of {row_name(row)} are {value!r:.60}, which contains a list. Give one "
                "flat list of labels per row."
            )
        rows.append(
            [str(part if isinstance(part, _NUMPY_SCALARS) else to_python(part)) for part in parts]
        )
    return rows


def _read_numbers(values: list[Any], names: Sequence[str] | None, row_name: _RowName) -> Targets:
    try:
        array = to_default_dtype(torch.tensor(np.array(values, dtype=np.float64)))
    except (TypeError, ValueError) as error:
        if has_decimal_commas(values):
            raise InputError(
                f"Regression needs numbers as labels, and {values[0]!r} has a decimal comma. Write "
                'decimal points, or convert the column: column.str.replace(",", ".").'
            ) from error
        raise InputError(
            f"Regression needs numbers as labels, and some labels are not numbers ({error}). Give "
            "one number per row, or the same count of numbers in every row."
        ) from error
    if not array.numel():
        raise InputError("The labels are rows without numbers. Give at least one number per row.")
    finite = torch.isfinite(array.reshape(len(values), -1)).all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise InputError(
            f"The label of {row_name(row)} is {values[row]!r}. Regression targets have to be "
            "finite: correct it, or remove the row."
        )
    width = 1 if array.ndim == 1 else array.shape[-1]
    if names is None:
        names = ("value",) if array.ndim == 1 else tuple(f"value_{i}" for i in range(width))
    if len(names) != width:
        raise InputError(
            f"There are {width} numbers per row, but {len(names)} names: {', '.join(names)}. Give "
            "one name per number."
        )
    low, high = float(array.min()), float(array.max())
    reason = f"the labels are numbers from {low:g} to {high:g}"
    return Targets("regression", array, tuple(names), reason)


def _read_classes(values: list[Any], classes: Sequence[str] | None, row_name: _RowName) -> Targets:
    try:
        found = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    except TypeError as error:
        first = {type(value).__name__: row for row, value in reversed(list(enumerate(values)))}
        seen = "; ".join(
            f"{row_name(row)} has {values[row]!r:.60} of type {name}"
            for name, row in sorted(first.items(), key=lambda item: item[1])
        )
        raise InputError(
            f"The labels cannot be sorted into classes ({error}): {seen}. Give text or whole "
            "numbers, and one type for all rows."
        ) from error
    _refuse_two_types(values, row_name, by_name=classes is None)
    if classes is None:
        _refuse_outer_spaces(values, found, row_name)
    type_name = "text" if isinstance(found[0], str) else type(found[0]).__name__
    reason = f"{len(found):,} distinct labels ({type_name}) in {len(values):,} rows"
    if classes is None:
        index_of = {value: number for number, value in enumerate(found)}
        names = tuple(class_name(value) for value in found)
    else:
        names = tuple(map(str, classes))
        name_of = {value: name_as_in(class_name(value), names) for value in found}
        index_of = {v: names.index(name) for v, name in name_of.items() if name in names}
        if not index_of:  # the labels are indices
            index_of = {v: v for v in found if isinstance(v, int) and 0 <= v < len(names)}
    numbers, wrong = number_labels(values, index_of)
    if wrong is not None:
        raise InputError(
            f"The label of {row_name(wrong)} is {values[wrong]!r}, which is not one of the "
            f"{len(names)} classes: {name_some(names, most=20)}. Add it to the classes, or leave "
            "out its rows."
        )
    if len(names) < 2:
        raise InputError(
            f"All {len(values):,} labels are {values[0]!r}. Classification needs at least two "
            "classes: add samples of another class."
        )
    return Targets("classification", torch.tensor(numbers, dtype=torch.int64), names, reason)


def _refuse_outer_spaces(values: Sequence[Any], found: Sequence[Any], row_name: _RowName) -> None:
    """Raise an InputError if two labels differ in the white space around them only."""
    known: dict[str, str] = {}
    for label in found:
        if not isinstance(label, str):
            continue
        other = known.setdefault(label.strip(), label)
        if other != label:
            raise InputError(
                f"The labels {other!r} ({row_name(values.index(other))}) and {label!r} "
                f"({row_name(values.index(label))}) differ only in white space, so they would be "
                "two classes. Remove it: label.strip()."
            )


def _refuse_two_types(values: Sequence[Any], row_name: _RowName, *, by_name: bool) -> None:
    """Raise an InputError if one label is written in two types.

    Args:
        values: The labels.
        row_name: Names of the rows, for the message.
        by_name: Whether labels that differ, but have the same class name, are refused: 1 and "1".
            Equal ones with two class names always are: 1 and True.
    """
    if len(set(map(type, values))) == 1:
        return
    pairs = list(zip(map(type, values), values, strict=True))
    first_rows = {pair: row for row, pair in reversed(list(enumerate(pairs)))}
    row_of_value: dict[Any, int] = {}
    row_of_name: dict[str, int] = {}
    for row in sorted(first_rows.values()):
        same_value = row_of_value.setdefault(values[row], row)
        same_name = row_of_name.setdefault(class_name(values[row]), row)
        if same_value < same_name or (by_name and same_name < same_value):
            seen = "; ".join(
                f"{row_name(each)} has {values[each]!r} of type {type(values[each]).__name__}"
                for each in (min(same_value, same_name), row)
            )
            raise InputError(
                f"The labels have several types, and it is unknown whether these are one class: "
                f"{seen}. Use one type for all rows."
            )


def _read_tags(tags: list[list[str]], classes: Sequence[str] | None, row_name: _RowName) -> Targets:
    found = Counter(tag for row in tags for tag in row)
    names = tuple(map(str, classes)) if classes is not None else tuple(sorted(found))
    index_of = {name: number for number, name in enumerate(names)}
    values = torch.zeros(len(tags), len(names))
    name_of = {tag: name_as_in(tag, names) for tag in found}
    for row, row_tags in enumerate(tags):
        for tag in row_tags:
            if name_of[tag] not in index_of:
                raise InputError(
                    f"{row_name(row)} has the label {tag!r}, which is not one of the {len(names)} "
                    f"classes: {name_some(names, most=20)}."
                )
            values[row, index_of[name_of[tag]]] = 1.0
    if not names:
        raise InputError("No row has a label. Give at least one label in at least one row.")
    mean = found.total() / len(tags)
    reason = f"{len(names):,} labels, {mean:.2f} per sample on average in {len(tags):,} rows"
    return Targets("multi_label", values, names, reason)
