"""``flambeau demo vision``, the README's first command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flambeau.cli.app import build_app

WRITTEN = ("curves.png", "predictions.png", "plan.json", "history.csv", "model/flambeau.json")


def demo(folder: Path, *words: str) -> tuple[str, dict[str, float]]:
    """Return the output, and the scores of its last table by row."""
    result = CliRunner().invoke(build_app(), ["demo", "vision", "--out", str(folder), *words])
    assert result.exit_code == 0, result.output
    rows = re.findall(
        r"^(majority class|logistic regression|flambeau, \w+) +(0\.\d+|1\.0+)$",
        result.output,
        re.MULTILINE,
    )
    return result.output, {name: float(score) for name, score in rows}


def test_a_small_demo_runs_every_step(tmp_path: Path) -> None:
    text, scores = demo(tmp_path / "run", "--samples", "400", "--epochs", "1")
    for part in (
        "learning rate",
        "architecture",
        "train_loss",
        "Predictions of the exported model",
    ):
        assert part in text
    assert len(scores) == 3
    for name in WRITTEN:
        assert (tmp_path / "run" / name).stat().st_size > 0, name


@pytest.mark.slow
def test_the_network_beats_the_linear_model(tmp_path: Path) -> None:
    _, scores = demo(tmp_path / "run")
    assert scores["majority class"] < 0.15
    assert scores["logistic regression"] <= 0.70
    assert scores["flambeau, small_cnn"] >= 0.90
