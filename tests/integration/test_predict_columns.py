"""Columns of ``flambeau predict`` for classes that are named like them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from typer.testing import CliRunner

from flambeau import Learner
from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError
from flambeau_vision import ImageData


def call(*words: object) -> str:
    """Return what a command prints."""
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    if isinstance(result.exception, ArgumentError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_classes_named_like_columns_do_not_overwrite_them(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name in ("file", "label", "error"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(5):
            pixels = draws.integers(0, 256, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index}.png")
    learner = Learner(ImageData.from_folder(tmp_path / "data", size=8), quiet=True)
    model = learner.export(tmp_path / "model")
    files = [tmp_path / "data" / name / "0.png" for name in ("file", "error")]
    rows = json.loads(call("predict", model, *files, "--format", "json"))
    assert [row["file"] for row in rows] == [str(file) for file in files]
    names = [f"probabilities.{name}" for name in ("error", "file", "label")]
    for row in rows:
        assert row["label"] in ("file", "label", "error")
        assert "error" not in row
        assert sum(row[name] for name in names) == pytest.approx(1, abs=1e-6)
    call("predict", model, *files, "--out", tmp_path / "p.csv")
    with open(tmp_path / "p.csv", encoding="utf-8") as text:
        [first, _] = csv.DictReader(text)
    assert list(first) == ["file", "label", "probability", *names]
    call("predict", model, *files, "--out", tmp_path / "p.parquet")
    table = parquet.read_table(tmp_path / "p.parquet")
    assert table.column("label").to_pylist() == [row["label"] for row in rows]
    with pytest.raises(ArgumentError, match="--keep is only for tables"):
        call("predict", model, *files, "--keep", "name")


def test_errors_of_predict_advise_no_option_of_training(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3)).astype(np.uint8)
    learner = Learner(ImageData.from_arrays(rows, ["ant", "bee"] * 5), quiet=True)
    model = learner.export(tmp_path / "model")
    Image.fromarray(rows[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    words = ["predict", model, tmp_path / "good.png", tmp_path / "bad.png", "--format", "json"]
    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    good, bad = json.loads(result.stdout)
    assert good["label"] in ("ant", "bee")
    assert "bad.png cannot be read as an image" in bad["error"]
    assert "ImageOptions" not in bad["error"]
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(
        build_app(), [*map(str, words[:2]), str(tmp_path / "empty"), *map(str, words[2:])]
    )
    empty, good, _ = json.loads(result.stdout)
    assert "is a folder without images" in empty["error"]
    assert good["label"] in ("ant", "bee")


def test_a_damaged_file_is_found_with_verify(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(5):
            pixels = draws.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    damaged = bytearray((tmp_path / "ant" / "0.png").read_bytes())
    damaged[200:260] = bytes(60)
    (tmp_path / "ant" / "0.png").write_bytes(damaged)
    words = ["plan", str(tmp_path), "--verify", "--unreadable", "skip"]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 0, result.output
    assert "1 could not be read and were skipped" in result.output
