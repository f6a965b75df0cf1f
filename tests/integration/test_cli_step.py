"""``flambeau step PATH`` prints the stages of the first step of ``flambeau fit``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError


def call(*words: object) -> str:
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def rows_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line]


def test_a_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    for name, level in (("bright", 190), ("dark", 50)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            pixels = random.normal(level, 20, (20, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    words = ("photos", "--size", "16", "--model", "small_cnn", "--lr", "0.01", "--steps", "4")
    text = call("step", *words, "--set", "batch_size=4")
    rows = rows_of(text)
    assert ["batch", "input", "image", "4×3×16×16", "uint8"] in [row[:5] for row in rows]
    kinds = {row[0] for row in rows}
    assert {"samples", "values", "transform", "output", "gradient", "update", "weight"} <= kinds
    assert text == call("step", *words, "--set", "batch_size=4")
    assert [each.name for each in tmp_path.iterdir()] == ["photos"]


def test_a_table_with_an_option_of_its_domain(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(40, 3)), columns=["a", "b", "c"])
    frame["kind"] = np.where(frame["a"] > 0, "yes", "no")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    text = call("step", tmp_path / "rows.csv", "--target", "kind", "--domain", "tabular")
    assert any(row[:3] == ["loss", "mean", "scalar"] for row in rows_of(text))


def test_a_contradiction_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,y\n" + "1,yes\n2,no\n" * 10)
    words = (tmp_path / "rows.csv", "--target", "y", "--domain", "tabular")
    with pytest.raises(ArgumentError, match="both set the run's length"):
        call("step", *words, "--epochs", "2", "--steps", "3")
