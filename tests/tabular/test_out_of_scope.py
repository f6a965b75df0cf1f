"""Forecasts, values of the past and joins are refused with what to use instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError, FlambeauError, InputError
from flambeau_tabular import TabularData, TabularOptions

FRAME = pd.DataFrame({"x": [0.5 * row for row in range(40)], "y": [0, 1] * 20})
INSTEAD = {
    "horizon": "neuralforecast",
    "prediction_length": "neuralforecast",
    "lags": "#values-of-the-past",
    "rolling": "#values-of-the-past",
    "join": "pandas.merge",
    "merge": "pandas.merge",
}


@pytest.mark.parametrize("name", INSTEAD)
def test_arguments_of_other_packages(name: str) -> None:
    more: dict[str, Any] = {name: 3}
    with pytest.raises(ArgumentError, match=f"no argument '{name}'.*{INSTEAD[name]}"):
        TabularData.from_df(FRAME, "y", **more)
    with pytest.raises(ArgumentError, match=INSTEAD[name]):
        TabularOptions(**more)


@pytest.mark.parametrize("name", INSTEAD)
def test_options_of_the_command_line(name: str, tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    option = "--" + name.replace("_", "-")
    for command in ("fit", "plan", "doctor"):
        path = str(tmp_path / "rows.csv")
        found = CliRunner().invoke(build_app(), [command, path, "--target", "y", option, "3"])
        assert isinstance(found.exception, FlambeauError)
        assert f"Unknown option '{option}'" in str(found.exception)
        assert INSTEAD[name] in str(found.exception)


@pytest.mark.parametrize(
    "tables",
    [
        [FRAME, FRAME],
        (FRAME, FRAME),
        {"orders": FRAME, "people": FRAME},
        [pl.from_pandas(FRAME), FRAME],
        {"orders": pa.Table.from_pandas(FRAME)},
    ],
)
def test_several_tables(tables: Any) -> None:
    with pytest.raises(InputError, match=r"not one table\..*pandas\.merge"):
        TabularData.from_df(tables, "y")


def test_columns_of_any_library_are_no_tables() -> None:
    columns = {"x": FRAME["x"], "z": pl.Series(range(40)), "y": pa.array([0, 1] * 20)}
    assert len(TabularData.from_df(columns, "y").frame) == 40


@pytest.mark.parametrize("read", [TabularData.from_csv, TabularData.from_parquet])
def test_several_files(read: Any) -> None:
    with pytest.raises(InputError, match=r"list of 2 paths.*pandas\.concat"):
        read(["a.csv", "b.csv"], "y")
    with pytest.raises(ArgumentError, match="must be a path"):
        read(3, "y")
