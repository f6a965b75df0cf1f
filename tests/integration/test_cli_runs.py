"""``flambeau runs`` lists and compares what ``flambeau fit`` has written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError, InputError


def invoke(*words: object) -> Result:
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli")
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(300, 3)), columns=["a", "b", "c"])
    frame["kind"] = np.where(frame["a"] + 0.2 * random.normal(size=300) > 0, "yes", "no")
    frame["part"] = ["train"] * 200 + ["valid"] * 60 + ["test"] * 40
    frame.to_csv(root / "rows.csv", index=False)
    words = ("fit", root / "rows.csv", "--target", "kind", "--domain", "tabular", "--split", "part")
    for name, lr in (("good", "0.01"), ("bad", "3e-4")):
        invoke(*words, "--epochs", "3", "--lr", lr, "--out", root / "runs" / name)
    return root


def test_the_runs_are_listed_and_compared(folder: Path, tmp_path: Path) -> None:
    text = invoke("runs", folder / "runs").stdout
    assert "2 runs in" in text
    content = json.loads(invoke("runs", "list", folder / "runs", "--json").stdout)
    assert {Path(run["folder"]).name for run in content["runs"]} == {"good", "bad"}
    assert all(run["status"] == "finished" for run in content["runs"])
    last = json.loads(invoke("runs", folder / "runs", "--last", 1, "--json").stdout)
    assert len(last["runs"]) == 1

    words = ("runs", "compare", folder / "runs" / "bad", folder / "runs" / "good")
    page = tmp_path / "page.html"
    text = invoke(*words, "--out", page).stdout
    assert "Is B better than A?" in text
    assert "60 valid samples" in text
    assert page.read_text().startswith("<!doctype html>")
    compared = json.loads(invoke(*words, "--part", "test", "--json").stdout)
    assert compared["pairs"][0]["method"] == "samples"
    assert compared["part"] == "test"


def test_fit_prints_the_scores_of_the_stored_predictions(folder: Path) -> None:
    from flambeau.report.stored_predictions import load_predictions, predictions_path

    good = folder / "runs" / "good"
    stored = load_predictions(predictions_path(good, "test")).predictions
    evaluated = invoke("evaluate", good / "model", folder / "rows.csv", "--part", "test", "--json")
    scores = json.loads(evaluated.stdout)
    assert scores["loss"] == pytest.approx(stored.scores["loss"], rel=1e-6)
    assert scores["samples"] == len(stored) == 40


def test_evaluate_stores_predictions_for_a_comparison(folder: Path) -> None:
    good = folder / "runs" / "good"
    path = good / "predictions-valid.safetensors"
    before = path.read_bytes()
    path.unlink()
    words = ("evaluate", good / "model", folder / "rows.csv", "--part", "valid", "--save")
    assert "predictions-valid.safetensors" in invoke(*words).stderr
    path.unlink()
    path.write_bytes(before)
    with pytest.raises(ArgumentError, match="--save stores the predictions for one part"):
        invoke("evaluate", good / "model", folder / "rows.csv", "--part", "all", "--save")


def test_what_is_missing_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        invoke("runs", tmp_path / "missing")
    with pytest.raises(InputError, match="at least two runs"):
        invoke("runs", "compare", folder / "runs" / "good")
    assert "compare" in invoke("runs", "--help").stdout
