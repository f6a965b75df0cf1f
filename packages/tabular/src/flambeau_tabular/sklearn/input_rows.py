"""Read ``X`` of scikit-learn's methods: arrays, lists, and frames of any library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from sklearn.utils.validation import validate_data

from flambeau.errors import InputError
from flambeau_tabular.columns import Frame, read_frame
from flambeau_tabular.columns.frames import is_table

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

_FEWEST_ROWS = 2  # one to train on and one to validate on


def read_fit_rows(estimator: BaseEstimator, X: Any) -> tuple[Frame, list[str]]:
    """Return the table in ``X`` of ``fit``, and its columns if ``X`` is an array of numbers.

    Sets ``n_features_in_`` and, for columns with names, ``feature_names_in_``. The columns of an
    array are named "x0", "x1", ….

    Raises:
        ValueError: There are too few rows or columns, or ``X`` is not two-dimensional.
        TypeError: ``X`` is a sparse matrix.
    """
    frame, dtype = _read(estimator, X, reset=True)
    is_numeric = dtype is not None and dtype.kind in "iuf"
    return frame, frame.column_names if is_numeric else []


def read_rows(estimator: BaseEstimator, X: Any, names: Sequence[str]) -> Frame:
    """Return the table in ``X`` with the column names of ``fit``.

    scikit-learn has compared the names, so the columns are in the order of ``fit``; an array has no
    names and takes those of ``fit``.

    Raises:
        ValueError: Number or names of the columns differ from those of ``fit``.
    """
    frame, _ = _read(estimator, X, reset=False)
    table: Any = frame.table
    return replace(frame, table=table.rename_columns(list(names)))


def _read(estimator: BaseEstimator, X: Any, *, reset: bool) -> tuple[Frame, np.dtype | None]:
    if is_data_frame(X):
        # A stream of Arrow can be read once only, and scikit-learn knows no relations of DuckDB.
        table = X if hasattr(X, "iloc") else pa.table(X)
        frame = read_frame(table, "X")
        _check_size(estimator, len(frame), len(frame.column_names), _FEWEST_ROWS if reset else 1)
        validate_data(estimator, table, reset=reset, skip_check_array=True)
        return frame, None
    array: Any = validate_data(
        estimator,
        _array_of(X),
        reset=reset,
        dtype=None,
        ensure_all_finite=False,  # NaN is missing, and so is infinity
        ensure_min_samples=_FEWEST_ROWS if reset else 1,
    )
    return read_frame(array, "X"), array.dtype


def is_data_frame(X: Any) -> bool:
    """Return whether ``X`` is a table with named columns: no array, and no single column."""
    if hasattr(X, "iloc"):
        return hasattr(X, "columns")
    is_column = hasattr(X, "to_frame") or isinstance(X, pa.Array | pa.ChunkedArray)
    return is_table(X) and not is_column and not isinstance(X, Mapping)


def _array_of(X: Any) -> Any:
    """Return ``X``; a list that mixes numbers and text as objects, because NumPy makes it text."""
    if hasattr(X, "collect_schema"):
        raise InputError(
            f"X is a {type(X).__name__}, whose rows are not computed yet. Give a frame: "
            "X.collect()."
        )
    if not isinstance(X, list | tuple) or np.asarray(X).dtype.kind not in "US":
        return X
    return np.asarray(X, dtype=object)


def _check_size(estimator: BaseEstimator, rows: int, columns: int, fewest: int) -> None:
    """Raise scikit-learn's errors for tables that are too small."""
    name = type(estimator).__name__
    if columns < 1:
        raise ValueError(
            f"Found a table with 0 feature(s) (shape=({rows}, 0)) while a minimum of 1 is required "
            f"by {name}."
        )
    if rows < fewest:
        raise ValueError(
            f"Found a table with {rows} sample(s) (shape=({rows}, {columns})) while a minimum of "
            f"{fewest} is required by {name}."
        )
