"""Read ``y`` of scikit-learn's methods: labels of any type, several labels, and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import assert_all_finite, column_or_1d

from flambeau.data.float_dtype import to_default_dtype
from flambeau.data.targets import Targets
from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_tabular.predicted_frame import label_type_of

if TYPE_CHECKING:
    from flambeau_tabular.predicted_frame import LabelType


@dataclass(frozen=True)
class ReadTargets:
    """The targets of a fit.

    Attributes:
        targets: One per row.
        classes: The classes in the order of the model's outputs; None for numbers.
        label_type: Type of the class labels; None if they are text or several per row.
    """

    targets: Targets
    classes: NDArray[Any] | None = None
    label_type: LabelType | None = None


def read_labels(y: Any, classes: NDArray[Any] | None = None) -> ReadTargets:
    """Return the class labels in ``y``.

    Args:
        y: Labels ``(n,)`` of one type: text, integers, whole floats or bools; or columns of 0 and 1
            ``(n, labels)`` for several labels per row.
        classes: All classes, if they are known from other rows.

    Raises:
        ValueError: A label is missing, ``y`` is continuous or has several columns of classes, or a
            label is not in ``classes``.
    """
    array = _array_of(y)
    if array.dtype.kind == "f":
        assert_all_finite(array, input_name="y")
    _check_one_type(array)
    kind = type_of_target(array, input_name="y", raise_unknown=True)
    if kind == "multiclass-multioutput":
        raise InputError(
            f"y has shape {array.shape} and several classes in its columns. Give one column, or "
            "columns of 0 and 1 (several labels per row); for several columns of classes use "
            "sklearn.multioutput.MultiOutputClassifier(FlambeauClassifier(…))."
        )
    check_classification_targets(array)
    if kind == "multilabel-indicator":
        return _several_labels(y, array)
    labels = column_or_1d(array, warn=True)
    found, codes = np.unique(labels, return_inverse=True)
    if classes is not None:
        codes = _codes_among(found, classes)[codes]
        found = classes
    names = _names_of(found)
    label_type = None
    if found.dtype.kind in "biuf":
        label_type = label_type_of(pa.from_numpy_dtype(found.dtype), names)
    reason = f"{len(found):,} distinct labels in y"
    targets = Targets(
        "classification", torch.from_numpy(codes.astype(np.int64)), tuple(names), reason
    )
    return ReadTargets(targets, found, label_type)


def read_numbers(y: Any) -> ReadTargets:
    """Return the numbers in ``y``: ``(n,)``, or ``(n, targets)``.

    Raises:
        ValueError: A value is not a finite number, or ``y`` has more than two axes.
    """
    array = _array_of(y)
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported\n{array}\n")
    if array.dtype.kind in "mM":
        raise InputError(
            f"y has dates or durations ({array.dtype}). Give numbers in a unit of your choice: "
            '(y - y.min()) / pd.Timedelta("1D").'
        )
    if array.ndim not in (1, 2) or array.shape[1:] == (0,):
        raise ValueError(
            f"y should be a 1d array, or 2d with one column per target, got an array of shape "
            f"{array.shape} instead."
        )
    try:
        numbers = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"y has to be numbers for regression, and some values are not: {error}. For classes "
            "use FlambeauClassifier."
        ) from error
    assert_all_finite(numbers, input_name="y")
    low, high = float(numbers.min()), float(numbers.max())
    reason = f"y is a number from {low:g} to {high:g}"
    width = 1 if numbers.ndim == 1 else numbers.shape[1]
    names = ("y",) if width == 1 else tuple(f"y{at}" for at in range(width))
    values = to_default_dtype(torch.from_numpy(numbers))
    return ReadTargets(Targets("regression", values, names, reason))


def _several_labels(y: Any, array: NDArray[Any]) -> ReadTargets:
    names = tuple(map(str, getattr(y, "columns", range(array.shape[1]))))
    reason = f"{array.shape[1]:,} columns of 0 and 1 in y"
    values = torch.from_numpy(array.astype(np.float32))
    return ReadTargets(Targets("multi_label", values, names, reason), np.arange(array.shape[1]))


def _array_of(y: Any) -> NDArray[Any]:
    """Return ``y`` as an array; objects of one plain type in that type.

    Raises:
        ValueError: ``y`` is None, or a value is missing.
    """
    if hasattr(y, "toarray"):  # a sparse matrix of SciPy
        y = y.toarray()
    array = np.asarray(y)
    if array.dtype.kind == "T":  # NumPy's strings of variable length
        array = array.astype(object)
    if array.dtype.kind not in "OmM" or array.ndim == 0:
        return array
    cells = array.ravel().tolist()
    for row, value in enumerate(cells):
        if value is None or _is_missing(value):
            at = row if array.ndim == 1 else row // array.shape[1]
            raise InputError(
                f"Input y contains NaN: the value of row {at} is {value!r}. Drop the rows without "
                "a target before fit."
            )
    if array.dtype.kind != "O":
        return array
    for plain in (bool, int, float):
        if all(type(value) is plain for value in cells):
            try:
                return array.astype(plain)
            except OverflowError:  # an integer beyond int64 stays an object
                return array
    return array


def _check_one_type(labels: NDArray[Any]) -> None:
    if labels.dtype != object:
        return
    types = {"str" if isinstance(v, str) else type(v).__name__ for v in labels.ravel().tolist()}
    if len(types) > 1:
        raise InputError(
            f"The labels in y have several types ({name_some(sorted(types))}), which cannot be "
            "sorted. Give labels of one type: y.astype(str)."
        )


def _is_missing(value: Any) -> bool:
    name = type(value).__name__
    return name in ("NAType", "NaTType") or (isinstance(value, float) and value != value)  # noqa: PLR0124


def _codes_among(found: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the class number of each label.

    Raises:
        InputError: A label is not among the classes.
    """
    number_of = {value: number for number, value in enumerate(classes.tolist())}
    unknown = [value for value in found.tolist() if value not in number_of]
    if unknown:
        raise InputError(
            f"y_val has labels that y does not have: {name_some(map(repr, unknown))}. The model "
            "cannot learn them: leave out these rows, or add rows of these classes to y."
        )
    return np.array([number_of[value] for value in found.tolist()], dtype=np.int64)


def _names_of(classes: NDArray[Any]) -> Sequence[str]:
    """Return a distinct text for each class."""
    names = [str(value) for value in classes.tolist()]
    is_clear = len(set(names)) == len(names) and all(name.strip() for name in names)
    return names if is_clear else [repr(value) for value in classes.tolist()]
