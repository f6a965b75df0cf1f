"""The examples of tables run, with few rows."""

from __future__ import annotations

import runpy
from pathlib import Path

import pyarrow.parquet as pq
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_steps_of_ten_million_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = runpy.run_path(str(EXAMPLES / "ten_million_rows.py"))
    rows, model, out = (tmp_path / name for name in ("rows.parquet", "model", "p.parquet"))
    steps["make"](rows, 3000)
    written = rows.stat().st_mtime_ns
    steps["make"](rows, 3000)
    assert rows.stat().st_mtime_ns == written  # kept
    steps["fit"](rows, model)
    steps["predict"](rows, model, out)
    assert pq.read_table(out).num_rows == 3000
    shown = capsys.readouterr().out
    assert all(f'"step": "{step}"' in shown for step in ("data", "fit", "predict"))


def test_the_latency_of_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "row_latency.py"))["main"](200, 2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" median")[0].strip() for line in lines] == [
        "dict",
        "frame of one row",
        "frame of 200",
    ]
