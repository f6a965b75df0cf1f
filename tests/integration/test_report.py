"""The report from the command line and from real photographs."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flambeau import Learner
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
    for expected in ("model on labelled data", "20 labelled samples", "Plan</h2>", "bright"):
        assert expected in html
    assert html.count("data:image/jpeg") == 12
    assert "Training</h2>" not in html, "an export has no history"


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
