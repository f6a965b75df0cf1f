"""``arrow_column``: the values of one column, in any container, as Arrow cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from flambeau.data.reading import Reading
from flambeau.errors import InputError
from flambeau_tabular.columns.cells import pc
from flambeau_tabular.columns.object_values import arrow_objects

_UNITS = ("s", "ms", "us", "ns")
_KNOWN = (
    pa.types.is_null,
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_date,
    pa.types.is_timestamp,
    pa.types.is_time,
    pa.types.is_duration,
)


def arrow_column(values: Any, name: str, readings: list[Reading]) -> pa.ChunkedArray:
    """Return the cells of a column.

    Args:
        values: An Arrow column, a series of pandas or polars, an array, a tensor, or a sequence.
        name: Name of the column, for messages.
        readings: A reading is appended if the column mixes numbers and text.

    Raises:
        InputError: The cells are not single values, or their types cannot be mixed.
    """
    if isinstance(values, pa.Array | pa.ChunkedArray):
        cells = values
    elif hasattr(values, "iloc"):
        cells = _from_pandas(values, name, readings)
    elif hasattr(values, "dtype") and hasattr(values, "categories"):  # pandas' Categorical
        cells = _from_categorical(values, values.dtype, name, readings)
    elif isinstance(values, np.ndarray):
        cells = _from_numpy(values, name, readings)
    elif hasattr(values, "detach"):
        cells = _from_numpy(values.detach().cpu().numpy(), name, readings)
    elif isinstance(values, str | bytes) or not hasattr(values, "__iter__"):
        raise InputError(
            f"Column {name!r} is a {type(values).__name__}, not a sequence. Give one value per row."
        )
    else:
        cells = _from_sequence(values, name, readings)
    return _checked(
        cells if isinstance(cells, pa.ChunkedArray) else pa.chunked_array([cells]), name
    )


def _from_sequence(values: Any, name: str, readings: list[Reading]) -> pa.Array | pa.ChunkedArray:
    if hasattr(values, "to_arrow"):  # a series of polars
        return values.to_arrow()
    listed = list(values)
    cells = np.empty(len(listed), dtype=object)
    cells[:] = listed
    return arrow_objects(cells, name, readings)


def _from_pandas(series: Any, name: str, readings: list[Reading]) -> pa.Array | pa.ChunkedArray:
    dtype = series.dtype
    kind = type(dtype).__name__
    if kind == "CategoricalDtype":
        return _from_categorical(series.cat, dtype, name, readings)
    if kind == "SparseDtype":
        return _from_pandas(series.sparse.to_dense(), name, readings)
    if kind == "PeriodDtype":
        return _from_pandas(series.dt.to_timestamp(), name, readings)
    if kind == "DatetimeTZDtype":
        times = _from_numpy(series.dt.tz_convert(None).to_numpy(), name, readings)
        return times.cast(pa.timestamp(times.type.unit, "UTC"))
    if kind == "IntervalDtype":
        return pa.array(series.astype(str).where(series.notna()), from_pandas=True)
    if isinstance(dtype, np.dtype):
        return _from_numpy(series.to_numpy(), name, readings)
    return pa.array(series, from_pandas=True)


def _from_categorical(values: Any, dtype: Any, name: str, readings: list[Reading]) -> pa.Array:
    """Return dictionary cells; the categories are read like a column, they may be of any type."""
    categories = arrow_column(dtype.categories.to_series(), name, readings).combine_chunks()
    codes = np.asarray(values.codes)
    indices = pa.array(codes, mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, categories, ordered=bool(dtype.ordered))


def _from_numpy(array: np.ndarray, name: str, readings: list[Reading]) -> pa.Array:
    if array.ndim != 1:
        raise InputError(
            f"Column {name!r} has shape {array.shape}. Give one value per row; split an array "
            "into several columns."
        )
    mask = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None
    array = np.ma.getdata(array) if mask is not None else array
    kind = array.dtype.kind
    if kind == "O":
        if mask is not None:
            array = array.copy()
            array[mask] = None
        return arrow_objects(array, name, readings)
    if kind in "cV":
        raise InputError(
            f"Column {name!r} has the type {array.dtype}, which is not supported. Give its parts "
            "as columns of numbers, such as the real and the imaginary part."
        )
    if kind in "SU":
        text = np.char.decode(array, "utf-8") if kind == "S" else array
        return pa.array(text.astype(object), pa.large_string(), mask=mask)
    if kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if kind in "mM" and np.datetime_data(array.dtype)[0] not in _UNITS:
        array = array.astype(f"{kind}8[s]")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return pa.array(array, from_pandas=True, mask=mask)


def _checked(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return cells of a type that holds single values; text as text, not as bytes."""
    if pa.types.is_run_end_encoded(cells.type):
        chunks = [pc.run_end_decode(chunk) for chunk in cells.chunks]
        cells = pa.chunked_array(chunks, cells.type.value_type)
    kind = cells.type.value_type if pa.types.is_dictionary(cells.type) else cells.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        try:
            return cells.cast(pa.large_string())
        except pa.ArrowException as error:
            raise InputError(
                f"Column {name!r} contains bytes that are not UTF-8 text. Decode them, or drop the "
                "column."
            ) from error
    if pa.types.is_string_view(kind):  # of polars; Arrow cannot filter or take such cells
        text = pa.large_string()
        is_dictionary = pa.types.is_dictionary(cells.type)
        return cells.cast(pa.dictionary(pa.int32(), text) if is_dictionary else text)
    if not any(matches(kind) for matches in _KNOWN):
        raise InputError(
            f"Column {name!r} has the type {kind}; a cell has to be a number, text, a boolean or "
            "a date. Split lists and structs into columns, or drop the column."
        )
    return cells
