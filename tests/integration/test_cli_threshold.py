"""``--threshold``: which labels of a multi-label model apply, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flambeau import Learner, Predictor
from flambeau.cli.app import build_app
from flambeau.errors import FlambeauError
from flambeau_vision import ImageData, ImageOptions


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multi-label export beside its table of images."""
    folder = tmp_path_factory.mktemp("tags")
    draws = np.random.default_rng(0)
    lines = ["file,label"]
    for row in range(16):
        pixels = draws.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
        lines.append(f"{row}.png,{('red;big', 'red', 'big', 'big;old')[row % 4]}")
    (folder / "t.csv").write_text("\n".join(lines))
    data = ImageData.from_csv(folder / "t.csv", options=ImageOptions(sep=";"))
    learner = Learner(data, quiet=True, choices={"epochs": 1})
    learner.fit()
    learner.task.calibration = {"thresholds": [0.5, 0.5, 0.5]}  # as calibrate would fit
    learner.export(folder / "model")
    return folder


def call(*words: object) -> str:
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_predict_and_evaluate_use_the_threshold(run: Path) -> None:
    files = [run / f"{row}.png" for row in range(4)]
    predictor = Predictor.load(run / "model")
    names = predictor.task.output_names
    p = [each.probabilities for each in predictor.predict([str(file) for file in files])]
    for text in ("1e-4", "0.9999", "0.3", "0.2,0.9,0.45"):
        limits = dict(zip(names, [float(each) for each in text.split(",")] * 3, strict=False))
        found = json.loads(
            call("predict", run / "model", *files, "--threshold", text, "--format", "json")
        )
        for record, each in zip(found, p, strict=True):
            assert record["labels"] == [name for name in names if each[name] >= limits[name]]
    # 16 images have 24 of 48 labels: all are predicted at 0.0001, and none at 0.9999.
    for text, f1 in (("1e-4", 2 * 24 / (2 * 24 + 24)), ("0.9999", 0.0)):
        words = ("evaluate", run / "model", run / "t.csv", "--sep", ";", "--threshold", text)
        assert json.loads(call(*words, "--json"))["micro_f1"] == pytest.approx(f1)


@pytest.mark.parametrize("text", ["2", "0", "1", "-0.1", "0.3,0.5", "high", "", "nan"])
def test_other_thresholds_are_refused(run: Path, text: str) -> None:
    with pytest.raises(FlambeauError, match=f"--threshold {text}"):
        call("predict", run / "model", run / "0.png", f"--threshold={text}")


def test_a_model_of_one_label_has_no_threshold(run: Path, tmp_path: Path) -> None:
    items = [(np.full((8, 8), row, np.uint8), "ab"[row % 2]) for row in range(8)]
    export = Learner(ImageData.from_items(items), quiet=True).export(tmp_path / "model")
    with pytest.raises(FlambeauError, match="--threshold is for models that predict several"):
        call("predict", export, run / "0.png", "--threshold", "0.3")
