"""``flambeau profile PATH`` prints where the time of a training step goes."""

from __future__ import annotations

import json
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


def shares(text: str) -> dict[str, int]:
    lines = [line.split() for line in text.splitlines()]
    return {row[0]: int(row[1]) for row in lines if len(row) > 2 and row[2] == "%"}


def test_a_folder_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    for name, level in (("bright", 190), ("dark", 50)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            pixels = random.normal(level, 20, (20, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    words = ("photos", "--size", "16", "--model", "small_cnn", "--set", "batch_size=4")
    words = (*words, "--timed", "4", "--no-try-changes", "--trace", "trace.json")
    text = call("profile", *words)
    assert "A training step of 4 samples takes " in text
    assert 95 <= sum(shares(text).values()) <= 105
    assert len(shares(text)) == 9
    assert "not tried" in text or "Bottleneck: " in text
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["photos", "trace.json"]


def test_a_table_with_an_option_of_its_domain(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(60, 3)), columns=["a", "b", "c"])
    frame["kind"] = np.where(frame["a"] > 0, "yes", "no")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    words = (tmp_path / "rows.csv", "--target", "kind", "--domain", "tabular", "--timed", "3")
    assert len(shares(call("profile", *words))) == 9


def test_a_contradiction_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,y\n" + "1,yes\n2,no\n" * 10)
    words = (tmp_path / "rows.csv", "--target", "y", "--domain", "tabular")
    with pytest.raises(ArgumentError, match="both set the run's length"):
        call("profile", *words, "--epochs", "2", "--steps", "3")
