"""The benchmark of tables: it refuses test scores of changed recipes, and logs every look."""

from __future__ import annotations

import json
import subprocess
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flambeau.errors import FlambeauWarning

EXAMPLES = Path(__file__).parents[2] / "examples"
FAST = {"epochs": 1, "probe": "off", "hidden": [8]}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return import_module("tables_benchmark")


def git(folder: Path, *words: str) -> None:
    names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True)


def rows(folder: Path, run: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Return 60 rows of two classes and their parts, in place of a set."""
    draws = np.random.default_rng(run)
    x = draws.normal(size=60)
    frame = pd.DataFrame({"x": x, "y": np.where(x + draws.normal(size=60) > 0, "yes", "no")})
    return frame, np.array(["train"] * 30 + ["valid"] * 15 + ["test"] * 15, object)


@pytest.fixture
def recipe(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of a recipe in a repository of its own, with a copy of the script."""
    for name in ("tables_benchmark.py", "adult_income.py"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"set": "small", "choices": FAST}))
    git(tmp_path, "init")
    git(tmp_path, "add", "tables_benchmark.py", "adult_income.py")
    git(tmp_path, "commit", "-m", "Add the script")
    reader = ModuleType("reader")
    reader.__file__ = str(tmp_path / "adult_income.py")
    case = benchmark.Case(reader, "y", rows, 1, {"defaults": {"max_iter": 3}}, {})
    monkeypatch.setattr(benchmark, "CASES", {"small": case})
    monkeypatch.setattr(benchmark, "RECIPES", tmp_path)
    monkeypatch.setattr(benchmark, "EXAMPLES", tmp_path)
    monkeypatch.setattr(benchmark, "__file__", str(tmp_path / "tables_benchmark.py"))
    return path


def test_only_committed_recipes_are_scored(benchmark: Any, recipe: Path, tmp_path: Path) -> None:
    log = tmp_path / "looks" / "looks.jsonl"

    def look(name: str = "small") -> dict[str, Any]:
        return benchmark.look(name, 0, tmp_path, log)

    with pytest.raises(SystemExit, match=r"small\.json is not as it was committed"):
        look()
    assert not log.exists()
    git(tmp_path, "add", "small.json")
    with pytest.raises(SystemExit, match="is not as it was committed"):  # staged is not committed
        look()
    git(tmp_path, "commit", "-m", "Freeze the recipe")
    first = look()
    assert 0 < first["accuracy"] < 1  # the probabilities of the classes, and no other column
    assert {"accuracy", "auroc", "log_loss", "cpu_s", "commit"} <= first.keys()
    assert look() == first  # from the log
    assert len(log.read_text().splitlines()) == 1

    recipe.write_text(json.dumps({"set": "small", "choices": {**FAST, "lr": 0.01}}))
    with pytest.raises(SystemExit, match="is not as it was committed"):
        look()
    git(tmp_path, "commit", "-am", "Change the recipe")
    assert look()["version"] != first["version"]
    assert len(log.read_text().splitlines()) == 2  # the first look stays

    script = tmp_path / "tables_benchmark.py"
    script.write_text(script.read_text() + "# changed\n")
    for name in ("small", "small:hgb:defaults"):
        with pytest.raises(SystemExit, match=r"tables_benchmark\.py is not as it was committed"):
            look(name)
    git(tmp_path, "commit", "-am", "Change the script")
    look("small:hgb:defaults")
    assert look()["version"] != first["version"]  # another script may score otherwise
    assert len(log.read_text().splitlines()) == 4


def test_validation_scores_need_no_commit(benchmark: Any, recipe: Path, tmp_path: Path) -> None:
    scores, notes = benchmark.train_recipe(json.loads(recipe.read_text()), 0, tmp_path, "valid")
    assert 0 <= scores["accuracy"] <= 1
    assert notes["epochs"] == 1
    folds = {**json.loads(recipe.read_text()), "folds": 2}
    scores, _ = benchmark.train_recipe(folds, 0, tmp_path, "test")
    assert 0 <= scores["auroc"] <= 1


def test_the_page_has_every_look_and_only_the_last_version(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    write_report = import_module("tables_report").write_report
    score = {"accuracy": 0.86, "auroc": 0.91, "log_loss": 0.3, "cpu_s": 12.0}
    entries = [
        {"recipe": "adult_best", "run": 0, "version": "a", **score},
        {"recipe": "adult_best", "run": 0, "version": "b", **score, "accuracy": 0.87},
        {"recipe": "adult_best", "run": 1, "version": "b", **score, "accuracy": 0.85},
        {"recipe": "adult:hgb:defaults", "run": 0, "version": "{}", **score, "accuracy": 0.88},
        {"recipe": "bike:hgb:defaults", "run": 0, "version": "{}", "rmse": 80.0, "mae": 1.0},
        {"recipe": "bike:hgb:defaults", "run": 1, "version": "{}", "rmse": 20.0, "mae": 1.0},
        {"recipe": "bike_best", "run": 0, "version": "a", "rmse": 40.0, "mae": 1.0},
    ]
    notes = {"when": "2026-11-30 04:00", "commit": "abc"}
    lines = [json.dumps({"cpu_s": 1.0, **notes, **entry}) for entry in entries]
    (tmp_path / "looks.jsonl").write_text("\n".join(lines) + "\n")
    months = [{"month": "2012-08", "rows": 10, "coverage": 0.8, "width": 100.0}]
    bike = {"set": "bike", "seed": 0, "coverage": 0.8, "size": 1.0, "rows": 10, "months": months}
    adult = {"set": "adult", "seed": 0, "coverage": 0.91, "size": 1.1}
    found = [bike, adult | {"log_loss_before": 0.31, "log_loss": 0.3}]
    (tmp_path / "intervals.jsonl").write_text("\n".join(map(json.dumps, found)) + "\n")
    write_report(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "| `adult_best` | 2 | 0.8600 ± 0.0141 | 0.9100 ± 0.0000 |" in page
    assert "| HistGradientBoosting, defaults | 1 | 0.8800 |" in page
    assert page.count("| `adult_best` |") == 4  # one line of scores, three looks
    assert "| adult | 1 | 91.0% | 91.0% | 91.0% | 1.100 | 0.3100 → 0.3000 |" in page
    assert "| 2012-08 | 10 | 80.0% | 100 |" in page
    # The run that both have: 40 and 80.
    assert "`bike_best` is 0.500 times that of HistGradientBoosting, defaults" in page


@pytest.mark.parametrize(
    ("name", "folder", "score"),
    [
        ("adult_income", "adult", "accuracy"),
        ("california_housing", "california_housing", "rmse"),
        ("bike_sharing", "bike_sharing", "rmse"),
    ],
)
def test_examples_run_on_few_rows(
    benchmark: ModuleType, realdata: Path, name: str, folder: str, score: str
) -> None:
    scores = import_module(name).main(realdata / folder, 600, **FAST)
    assert np.isfinite(scores[score])


def test_coverage_is_measured_on_few_rows(
    benchmark: ModuleType, realdata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    intervals = import_module("tables_intervals")
    monkeypatch.setattr(intervals, "EPOCHS", dict.fromkeys(intervals.EPOCHS, 1))
    whole = intervals.bike_sharing.read(realdata / "bike_sharing")
    monkeypatch.setattr(intervals.bike_sharing, "read", lambda folder: whole.iloc[-900:])
    with pytest.warns(FlambeauWarning, match="outside of the range in train"):
        found = intervals.bike(realdata, 0)  # later than train
    assert found["rows"] == sum(month["rows"] for month in found["months"]) == 180
    assert 0 <= found["coverage"] <= 1
