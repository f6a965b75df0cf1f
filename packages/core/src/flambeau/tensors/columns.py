"""Conversion of a user's arrays to CPU tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.data.checked_weights import checked_weights
from flambeau.data.collate import widened_target
from flambeau.data.readable_arrays import refuse_masked, refuse_unreadable
from flambeau.errors import ArgumentError, InputError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flambeau.data.tables import Table

Array: TypeAlias = "Tensor | NDArray[Any]"
Arrays: TypeAlias = "Array | Sequence[Any] | Mapping[str, Array | Sequence[Any]]"
"""What a user may pass: a tensor, array, list or column of a table, or several by name."""

_COMPACT = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32)
_STRING_KINDS = "UST"
_ENCODE = "encode the strings as numbers first (np.unique(…, return_inverse=True))"
_STACKED = {str, int, float, bool, list, tuple, np.ndarray, Tensor}  # NumPy and torch read these
# How to convert NumPy arrays that are not numeric, by the kind of their dtype.
_FIXES = {
    **dict.fromkeys(_STRING_KINDS, _ENCODE),
    "M": "convert it to durations: (times - times.min()) / np.timedelta64(1, 'D')",
    "m": "divide it by a unit: spans / np.timedelta64(1, 's')",
    "c": "give the real and imaginary parts as two columns, or use a complex torch tensor",
}


def as_columns(arrays: Arrays | None, kind: str) -> dict[str, Array]:
    """Return the arrays by name; a single one is named ``kind``.

    Lists (of numbers, strings, or tensors of one shape), columns of a table (a pandas or polars
    Series) and object arrays are converted.

    Raises:
        ArgumentError: A value is of another type, or the rows of a list have different shapes.
        InputError: A tensor is not strided, or an object array holds other objects than numbers
            or strings.
    """
    if arrays is None:
        return {}
    columns = dict(arrays) if isinstance(arrays, Mapping) else {kind: arrays}
    return {name: _checked(name, value) for name, value in columns.items()}


def as_tensors(columns: Mapping[str, Array]) -> dict[str, Tensor]:
    """Return CPU tensors; NumPy's float64, its default dtype, becomes torch's default dtype.

    It stays float64 if rounding would make different values equal; see ``to_default_dtype``.

    Raises:
        InputError: A NumPy array is not numeric.
    """
    from flambeau.data.float_dtype import to_default_dtype

    tensors: dict[str, Tensor] = {}
    for name, value in columns.items():
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu()
            continue
        if value.dtype.kind not in "fiub":
            fix = _FIXES.get(value.dtype.kind, "encode it as numbers first (classes as 0, 1, …)")
            raise InputError(f"{name!r} has dtype {value.dtype}, which is not numeric: {fix}.")
        tensors[name] = to_default_dtype(torch.as_tensor(native_array(value)))
    return tensors


def native_array(array: NDArray[Any]) -> NDArray[Any]:
    """Return the numbers in an array in a form that torch reads without a warning.

    The array is contiguous and writable, in native byte order, and long doubles are doubles.
    """
    dtype = np.dtype(np.float64) if array.dtype.char == "g" else array.dtype.newbyteorder("=")
    native = np.ascontiguousarray(array, dtype=dtype).reshape(array.shape)
    # torch warns about read-only memory (memory maps), because it cannot prevent writes.
    return native if native.flags.writeable else native.copy()


def as_targets(columns: Mapping[str, Array]) -> dict[str, Tensor]:
    """Return targets as tensors: integers as int64, 2-D bool arrays as floats.

    Raises:
        InputError: A NumPy array is not numeric, or an integer does not fit in int64.
    """
    targets: dict[str, Tensor] = {}
    for name, value in as_tensors(columns).items():
        if value.dtype == torch.bool and value.ndim > 1:
            targets[name] = value.to(torch.get_default_dtype())
        else:
            targets[name] = value.long() if value.dtype in _COMPACT else widened_target(name, value)
    return targets


def as_sample_weights(values: Array) -> Tensor:
    """Return the weights of samples as a floating-point tensor ``(n,)``; see `checked_weights`."""
    [weights] = as_tensors(as_columns(values, "sample_weight")).values()
    return checked_weights(weights)


def weights_of_column(table: Table, column: str) -> Tensor:
    """Return the weights of samples in a column of a table; see `checked_weights`."""
    if column not in table:
        raise InputError(
            f"{table.name} has no column {column!r} for the weights of samples. "
            f"{did_you_mean(column, table.names)} Name the column with weight=…."
        )
    try:
        weights = np.array(table.column(column), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The column {column!r} has weights that are not numbers ({error}). Give one number of "
            "at least 0 per row."
        ) from error
    return as_sample_weights(weights)


def _checked(name: str, value: object) -> Array:
    if isinstance(value, Tensor):
        refuse_unreadable(repr(name), value)
        return value
    if isinstance(value, list):
        return _checked(name, _from_list(name, cast("list[Any]", value)))
    if not isinstance(value, np.ndarray):
        as_array: Any = getattr(value, "to_numpy", None)
        if callable(as_array) and len(getattr(value, "shape", ())) == 1:  # a column of a table
            return _checked(name, np.asarray(cast(Any, as_array())))
        from flambeau.data.prediction_columns import is_frame

        fix = "np.asarray(…), or torch.as_tensor(…)"
        if hasattr(value, "toarray"):  # a sparse matrix of SciPy
            fix = "matrix.toarray()"
        if is_frame(value):
            fix = "frame[columns].to_numpy() for the inputs, frame[column].to_numpy() for targets"
        raise ArgumentError(
            f"{name!r} is a {type(value).__name__}, not a tensor, NumPy array, list or column of a "
            f"table. Convert it: {fix}; for several {name}s give a dict, "
            '{"a": …, "b": …}.'
        )
    array = cast("NDArray[Any]", value)
    refuse_masked(repr(name), array)
    if array.dtype.kind == "S":  # bytes
        return np.char.decode(array, "utf-8", "backslashreplace")
    return _without_objects(name, array) if array.dtype.kind == "O" else array


def _from_list(name: str, rows: list[Any]) -> Array:
    """Return a list with one entry per row as an array, or as a tensor if the rows are tensors."""
    if not rows:
        raise InputError(f"{name!r} is an empty list. Give one entry per row.")
    kinds = set(map(type, rows))
    if any(issubclass(kind, np.ma.MaskedArray) for kind in kinds):
        for row, value in enumerate(rows):
            refuse_masked(f"Row {row} of {name!r}", value)
    if not kinds <= _STACKED:
        rows = _as_python(rows)
    _refuse_last_nul(name, rows)
    try:
        if isinstance(rows[0], Tensor):
            return torch.stack(rows)
        return np.asarray(rows)
    except (TypeError, ValueError, RuntimeError) as error:
        shapes = list(dict.fromkeys(_shape_of(row) for row in rows))
        found = f"shapes {', '.join(map(str, shapes[:3]))}" if len(shapes) > 1 else str(error)
        raise ArgumentError(
            f"The rows of the list {name!r} cannot be stacked: {found}. Give rows of one shape: "
            "pad or crop them, or pass a data set and a collate_fn to TensorData.from_loaders."
        ) from error


def _refuse_last_nul(name: str, values: Sequence[object]) -> None:
    """Raise an error for text that ends with NUL characters, which NumPy would remove."""
    for row, value in enumerate(values):
        if isinstance(value, str) and value.endswith("\0"):
            raise InputError(
                f"{name!r} has {value!r:.60} in row {row}, which ends with a NUL character. Remove "
                "it: text.rstrip('\\0')."
            )


def _as_python(values: Iterable[Any]) -> list[Any]:
    """Return decimals, fractions, bytes and members of enumerations as numbers or text."""
    from flambeau.data.label_scalars import SEQUENCES, to_python

    kept = (Tensor, *SEQUENCES)
    return [value if isinstance(value, kept) else to_python(value) for value in values]


def _shape_of(row: object) -> tuple[int, ...]:
    try:
        return tuple(np.shape(cast(Any, row)))
    except ValueError:  # ragged inside
        return (len(cast("list[object]", row)),)


def _without_objects(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return an object array (a DataFrame column) as an array of numbers or strings."""
    flat: list[object] = _as_python(array.reshape(-1))
    numbers = (bool, int, float, np.number, np.bool_)
    _refuse_last_nul(name, flat)
    for kind in (str, numbers):
        if flat and all(isinstance(value, kind) for value in flat):
            try:
                return np.array(flat).reshape(array.shape)
            except OverflowError:
                break
    first = type(flat[0]) if flat else object
    odd = next((i for i, value in enumerate(flat) if not isinstance(value, numbers)), 0)
    if first is str:
        odd = next((i for i, value in enumerate(flat) if not isinstance(value, str)), 0)
    position = np.unravel_index(odd, array.shape) if flat else (0,)
    row = ", ".join(str(int(index)) for index in position)
    found = f"{flat[odd]!r:.60} of type {type(flat[odd]).__name__}" if flat else "nothing"
    missing = " Fill in missing values or drop their rows." if _is_missing(flat, odd) else ""
    raise InputError(
        f"{name!r} has dtype object, which is not numeric: [{row}] is {found}.{missing} Convert "
        "the array: array.astype(np.float32) for numbers, array.astype(str) for strings."
    )


def _is_missing(flat: Sequence[object], index: int) -> bool:
    value = flat[index] if flat else 0
    return value is None or value != value  # noqa: PLR0124  NaN differs from itself
