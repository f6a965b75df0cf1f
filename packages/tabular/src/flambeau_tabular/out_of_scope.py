"""What is not done with tables (forecasts of series, joins, lags), and what to use instead."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from flambeau.errors import ArgumentError, InputError

_FORECAST = (
    "Forecasts of several future values of a series are not part of flambeau. Use a package for "
    "series (statsforecast, neuralforecast, AutoGluon's TimeSeriesPredictor); or predict one value "
    "per row, with time=… (--time) and the known past as columns: "
    "docs/tables.md#values-of-the-past."
)
_PAST = (
    "Values of earlier rows are not computed, because the table does not say when each became "
    "known. Add them as columns, from rows that are known at the time of the row: "
    "docs/tables.md#values-of-the-past."
)
_JOIN = (
    "flambeau reads one table with one row per prediction. Join the tables first (pandas.merge, "
    "join of polars, SQL of DuckDB); skrub's AggJoiner also sums up tables with several rows each."
)

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        ("horizon", "forecast_horizon", "prediction_length", "steps_ahead", "forecast", "fh"),
        _FORECAST,
    ),
    **dict.fromkeys(("lag", "lags", "rolling", "window", "windows", "history"), _PAST),
    **dict.fromkeys(
        ("join", "joins", "merge", "on", "tables", "relations", "relationships"), _JOIN
    ),
}
"""Arguments and options that users of other packages expect, with what to use instead."""


def argument_hint(name: str) -> str:
    """Return what to use instead of an argument of other packages; empty if it is not known."""
    return REFUSED.get(name, "")


def refuse_tables(source: Any, name: str) -> None:
    """Check that a table is not a list or a mapping of tables.

    Raises:
        InputError: It is one.
    """
    if isinstance(source, Mapping):
        tables = [f"{key!r}" for key, value in source.items() if _is_frame(value)]
        if tables:
            raise InputError(
                f"{name} is a mapping with the tables {', '.join(tables)}, not one table. {_JOIN}"
            )
    elif isinstance(source, list | tuple) and any(map(_is_frame, source)):
        raise InputError(
            f"{name} is a {type(source).__name__} of {len(source)} tables, not one table. Tables "
            f"with the same columns: pandas.concat, or concat of polars. Else: {_JOIN}"
        )


OneFile: TypeAlias = str | os.PathLike[str]
"""A path; ``one_path`` refuses other types, and says for a list of files what to do."""


def one_path(path: Any) -> Path:
    """Return the path of one file.

    Raises:
        ArgumentError: It is not a path.
        InputError: It is a list of paths.
    """
    if isinstance(path, list | tuple):
        raise InputError(
            f"path is a {type(path).__name__} of {len(path)} paths, not one path. Files with the "
            "same columns: pandas.concat(map(pandas.read_csv, paths)), then TabularData.from_df. "
            f"Else: {_JOIN}"
        )
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError(f"path must be a path (text or Path), not {path!r:.60}.")
    return Path(cast("OneFile", path))


def _is_frame(value: Any) -> bool:
    """Return whether a value is a table: series have no columns."""
    return hasattr(value, "columns") or hasattr(value, "column_names")
