"""The examples of tables run, with few rows."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

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


def test_the_latency_of_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLES / "row_latency.py"))["main"]
    threads = torch.get_num_threads()
    try:
        main(200, 2, tmp_path / "times.json")
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    names = [line.split(" median")[0].strip() for line in lines]
    assert names == [
        "dict",
        "pandas frame of one row",
        "polars frame of one row",
        "estimator, pandas frame of one row",
        "pandas frame of 200 rows",
    ]
    written = json.loads((tmp_path / "times.json").read_text())
    assert {name: len(each) for name, each in written["milliseconds"].items()} == {
        **dict.fromkeys(names, 2),
        names[-1]: 1,
    }
    assert written["machine"]["threads"] == 1


def test_a_search_with_optuna_repeats_its_best_trial(capsys: pytest.CaptureFixture[str]) -> None:
    # Not in the lock file: it brings SQLAlchemy and Alembic, which nothing else needs.
    pytest.importorskip("optuna", reason="run with: uv run --with optuna pytest …")
    runpy.run_path(str(EXAMPLES / "tune_with_optuna.py"))["main"](3, 2)
    shown = capsys.readouterr().out
    best = re.search(r"best ([0-9.]+)", shown)
    scores = re.findall(r"'refined_log_loss': ([0-9.]+)", shown)
    assert best is not None
    assert float(best[1]) == pytest.approx(float(scores[0]), abs=1e-4)  # of the repeated training
    assert len(scores) == 2
