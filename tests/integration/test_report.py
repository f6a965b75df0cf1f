"""The report from the command line and from real photographs."""

from __future__ import annotations

import math
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flambeau import Learner
from flambeau.callbacks.history_writer import read_history
from flambeau.cli.app import build_app
from flambeau_vision import ImageData

pytest.importorskip("matplotlib")


def test_evaluate_writes_a_report_of_an_export(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    random = np.random.default_rng(0)
    for name, level in (("bright", 190), ("dark", 50)):
        (photos / name).mkdir(parents=True)
        for index in range(10):
            pixels = random.normal(level, 20, (20, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(photos / name / f"{index:02}.png")
    learner = Learner(ImageData.from_folder(photos, size=16), quiet=True)
    exported, page = learner.export(tmp_path / "model"), tmp_path / "report.html"
    arguments = ["evaluate", str(exported), str(photos)]
    plain = CliRunner().invoke(build_app(), arguments)
    with_report = CliRunner().invoke(build_app(), [*arguments, "--report", str(page)])
    assert with_report.exit_code == 0, with_report.output
    assert f"The report is in {page}" in with_report.stderr
    assert with_report.stdout == plain.stdout, "the scores must be the same"
    html = page.read_text(encoding="utf-8")
    expected = (
        *("small_cnn (model) on photos", "20 labelled samples", "Plan</h2>", "bright"),
        *("majority class of these samples", "--set batch_size=64"),
        str(photos / "dark" / "00.png"),
    )
    for words in expected:
        assert words in html, words
    # Ten of twenty images have the most frequent class; the loss is the entropy of two halves.
    scores = dict(re.findall(r"<tr><td>(\w+)</td>.*?<td[^>]*>([\d.]+)</td></tr>", html))
    assert float(scores["accuracy"]) == 0.5
    assert float(scores["loss"]) == pytest.approx(math.log(2), abs=1e-3)
    assert html.count("data:image/jpeg") == 12
    assert "Training</h2>" not in html, "this export has no history"


def test_the_report_has_the_curves_of_the_run_and_takes_its_folder(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    for row, image in enumerate(images):
        path = tmp_path / "photos" / "ab"[row % 2] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    run = tmp_path / "mine"
    data = ImageData.from_folder(tmp_path / "photos")
    learner = Learner(data, folder=run, quiet=True, choices={"epochs": 3})
    learner.fit()
    learner.export(run / "model")
    for model in (run, run / "model"):
        page = tmp_path / "report.html"
        arguments = ["evaluate", str(model), str(tmp_path / "photos"), "--report", str(page)]
        assert CliRunner().invoke(build_app(), arguments).exit_code == 0
        html = page.read_text(encoding="utf-8")
        assert "Training</h2>" in html
        assert "small_cnn (mine) on photos" in html
    read = read_history(run)
    assert read is not None
    for name in ("epoch", "train_loss", "valid_accuracy", "lr", "phase"):
        assert [row[name] for row in read.rows] == [row[name] for row in learner.history.rows]
    assert read_history(tmp_path) is None


def test_evaluate_writes_a_report_of_amounts(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    rows = ["file,age"]
    for index in range(20):
        pixels = draws.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{1.5 * index}")
    (tmp_path / "ages.csv").write_text("\n".join(rows) + "\n")
    learner = Learner(ImageData.from_csv(tmp_path / "ages.csv", size=8), quiet=True)
    model, page = learner.export(tmp_path / "model"), tmp_path / "page.html"
    words = ["evaluate", str(model), str(tmp_path / "ages.csv"), "--report", str(page)]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 0, result.output
    html = page.read_text(encoding="utf-8")
    assert "small_cnn (model) on ages.csv" in html
    assert "in test: 0 to 28.5, mean 14.25" in html
    scores = dict(re.findall(r"<tr><td>(\w+)</td>.*?<td[^>]*>([\d.]+)</td></tr>", html))
    # The ages are 0, 1.5, …, 28.5; the constant prediction is their mean.
    ages = 1.5 * np.arange(20)
    assert float(scores["mae"]) == pytest.approx(np.abs(ages - ages.mean()).mean(), abs=1e-3)
    assert float(scores["rmse"]) == pytest.approx(ages.std(), abs=1e-3)


@pytest.mark.slow
def test_a_report_of_ants_and_bees(realdata: Path, tmp_path: Path) -> None:
    with tarfile.open(realdata / "hymenoptera" / "hymenoptera.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    folder = next(path.parent for path in tmp_path.rglob("train") if path.is_dir())
    learner = Learner(ImageData.from_folder(folder), choices={"epochs": 1}, quiet=True)
    learner.fit()
    found = learner.interpret()
    assert found.predictions.scores == learner.evaluate()
    assert len(found) == 153
    assert found.intervals["accuracy"].high - found.intervals["accuracy"].low < 0.17
    html = found.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/jpeg") == 12
    assert 100_000 < len(html) < 1_000_000
