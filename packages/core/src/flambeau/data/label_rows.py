"""Read labels that are rows of numbers: one-hot columns, multi-label columns, or amounts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.data.label_scalars import to_python
from flambeau.data.prediction_columns import is_frame
from flambeau.data.reading import Reading
from flambeau.data.tables import to_list
from flambeau.errors import InputError
from flambeau.wording import name_some

TASK_OPTION = 'task="{}" when you build the data; on the command line: --task {}'

# With this share of rows that have exactly one 1, the other rows could be mistakes.
_MOSTLY_ONE_HOT = 0.9
_SUM_TOLERANCE = 1e-3  # of probabilities in single precision
_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
_NUMBERS: tuple[type[Any], ...] = (bool, int, float, np.number, np.bool_)


@dataclass(frozen=True)
class NumberRows:
    """Labels that are rows of ``k`` numbers each.

    Attributes:
        values: float64 ``(n, k)``.
        is_float: Whether any of the numbers is a float.
        are_arrays: Whether the labels are an array, a tensor, a frame, or a list of arrays. Python
            lists of numbers could also be lists of tags.
    """

    values: NDArray[np.float64]
    is_float: bool
    are_arrays: bool

    @property
    def is_binary(self) -> bool:
        """Whether every number is 0 or 1."""
        return bool(np.isin(self.values, (0, 1)).all())

    @property
    def ones(self) -> NDArray[np.int64]:
        """int64 ``(n,)``: how many ones each row of 0 and 1 has."""
        return self.values.sum(axis=1).astype(np.int64)


def list_labels(labels: Any) -> tuple[list[Any], tuple[str, ...] | None]:
    """Return one label per sample, and the column names if the labels are a frame of columns.

    The labels of a 2-D array, tensor or frame are arrays; other labels are Python values.

    Raises:
        InputError: The labels are a single value, not one per sample.
    """
    if _is_single(labels):
        raise InputError(
            f"The labels are {labels!r:.60} of type {type(labels).__name__}. Give a sequence with "
            "one label per sample."
        )
    if is_frame(labels) and hasattr(labels, "columns"):
        names = tuple(map(str, labels.columns))
        values = [np.asarray(labels[name]) for name in labels.columns]
        if len(names) == 1:
            return to_list(values[0]), None
        return list(np.stack(values, axis=1)), names
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu()
        # NumPy has no bfloat16 and no floats of 8 bits.
        is_small = labels.is_floating_point() and labels.dtype not in _NUMPY_FLOATS
        labels = (labels.float() if is_small else labels).numpy()
    if isinstance(labels, np.ndarray) and cast("NDArray[Any]", labels).ndim > 1:
        return list(cast("NDArray[Any]", labels)), None
    return to_list(labels), None


def _is_single(labels: Any) -> bool:
    is_scalar = isinstance(labels, str | bytes) or getattr(labels, "ndim", 1) == 0
    return is_scalar or not isinstance(labels, Iterable)


def read_number_rows(values: Sequence[Any]) -> NumberRows | None:
    """Return labels that are rows of equally many numbers; None if they are anything else."""
    rows = list(values)
    if not all(isinstance(row, list | tuple) or getattr(row, "ndim", 0) == 1 for row in rows):
        return None
    if len({len(row) for row in rows}) != 1 or not len(rows[0]):
        return None
    entries = [entry for row in rows for entry in row]
    numbers = [each if isinstance(each, _NUMBERS) else to_python(each) for each in entries]
    if not all(isinstance(number, _NUMBERS) for number in numbers):
        return None
    is_float = any(isinstance(number, float | np.floating) for number in numbers)
    array = np.array(numbers, dtype=np.float64).reshape(len(rows), -1)
    return NumberRows(array, is_float, all(isinstance(row, np.ndarray) for row in rows))


def read_task_of_rows(
    rows: NumberRows, names: Sequence[str] | None, row_numbers: Sequence[int] | None = None
) -> Reading | None:
    """Return the task that follows from rows of at least two numbers, in ``evidence["task"]``.

    Rows of 0 and 1 are columns of classes: one-hot if every row has exactly one 1, else several
    labels per sample. Other numbers are amounts. None if they are Python lists of whole numbers,
    which are lists of tags.

    Args:
        rows: The labels.
        names: Names of the columns, if they are known.
        row_numbers: The number of each row, for the message; by default its position.
    """
    n, width = rows.values.shape
    shape = f"Each of the {n:,} labels is a row of {width} numbers"
    if rows.is_binary:
        one_hot = int((rows.ones == 1).sum())
        evidence: dict[str, Any] = {"columns": width, "rows with one 1": one_hot}
        if one_hot == n:
            return _task("classification", f"{shape} with exactly one 1: one-hot.", evidence, 0.9)
        what = f"{shape} 0 or 1; {one_hot:,} rows have exactly one 1."
        confidence = 0.9
        if one_hot > _MOSTLY_ONE_HOT * n:
            numbers = range(n) if row_numbers is None else row_numbers
            odd = name_some(numbers[row] for row in np.flatnonzero(rows.ones != 1).tolist())
            what = f"{shape} 0 or 1, and only the rows {odd} do not have exactly one 1."
            confidence = 0.4
        return _task("multi_label", what, evidence, confidence)
    if not rows.is_float and not rows.are_arrays:
        return None
    evidence = {"columns": width, "smallest": float(rows.values.min())}
    sums = rows.values.sum(axis=1)
    if bool((rows.values >= 0).all()) and bool((abs(sums - 1) < _SUM_TOLERANCE).all()):
        what = f"{shape} that sum to 1, as the probabilities of classes would."
        override = "For classes pass the most probable class of each sample: labels.argmax(1)."
        return _task("regression", what, evidence, 0.4, override)
    if not rows.is_float:
        what = f"{shape}, whole numbers other than 0 and 1, which could be tags."
        return _task("regression", what, evidence, 0.4)
    if names is not None and len(names) != width:
        return None
    return _task("regression", f"{shape}.", evidence, 0.95)


def class_numbers(rows: NumberRows, row_name: Any) -> list[int]:
    """Return the column of the 1 in each row.

    Raises:
        InputError: A row does not have exactly one 1; the message names the row.
    """
    wrong = np.flatnonzero(rows.ones != 1) if rows.is_binary else np.arange(len(rows.values))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"The label of {row_name(row)} is {rows.values[row].tolist()}, but one-hot labels have "
            "exactly one 1. Correct it; for several labels per sample use task='multi_label', on "
            "the command line --task multi_label."
        )
    return cast("list[int]", rows.values.argmax(axis=1).tolist())


def column_names(width: int, names: Sequence[str] | None) -> tuple[str, ...]:
    """Return one name for each column, by default its number.

    Raises:
        InputError: There are more or fewer names than columns.
    """
    found = tuple(map(str, range(width) if names is None else names))
    if len(found) != width:
        raise InputError(
            f"Each label is a row of {width} columns, but there are {len(found)} class names: "
            f"{name_some(found, most=10)}. Give one name per column, in the order of the columns."
        )
    return found


def _task(
    task: str, what: str, evidence: dict[str, Any], confidence: float, override: str = ""
) -> Reading:
    others = tuple(each for each in ("classification", "multi_label", "regression") if each != task)
    return Reading(
        "task",
        what,
        {"task": task, **evidence},
        others,
        confidence,
        override or f"For another task pass {TASK_OPTION.format(others[0], others[0])}.",
    )
