"""``flambeau evaluate`` on data that differ from those of training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from flambeau import FlambeauWarning, Learner, Predictor
from flambeau.cli.app import build_app
from flambeau.cli.evaluate_command import Part, _batches, parts_to_score
from flambeau.data.split import Split
from flambeau.errors import ArgumentError, InputError
from flambeau_vision import ImageData, ImageOptions


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    draws = np.random.default_rng(0)
    for name in ("bright", "dark", "grey"):
        (folder / name).mkdir()
        for index in range(6):
            pixels = draws.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def model(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    learner = Learner(ImageData.from_folder(photos, size=16), quiet=True)
    return learner.export(tmp_path_factory.mktemp("model") / "model")


def evaluate(*words: object) -> tuple[str, str]:
    """Return what the command prints to standard output and to standard error."""
    result = CliRunner().invoke(build_app(), ["evaluate", *(str(word) for word in words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout, result.stderr


def test_all_samples_of_a_plain_folder_are_scored(model: Path, photos: Path) -> None:
    out, _ = evaluate(model, photos)
    assert out.startswith("18 samples (all)\n")
    assert evaluate(model, photos, "--part", "all")[0] == out
    assert evaluate(model, photos, "--part", "valid")[0].startswith("4 samples (valid)\n")


def test_a_class_that_the_model_does_not_know_is_refused(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(photos, tmp_path / "data"))
    shutil.copytree(photos / "grey", data / "zebra")
    rows = [f"{f.relative_to(data)},{f.parent.name}" for f in sorted(data.rglob("*.png"))]
    (tmp_path / "t.csv").write_text("file,label\n" + "\n".join(rows) + "\n")
    for path, words in ((data, ()), (tmp_path / "t.csv", ("--root", data))):
        for part in ((), ("--part", "valid")):
            with pytest.raises(InputError, match=r"1 of 4 classes.*zebra \(6\).*--unknown skip"):
                evaluate(model, path, *words, *part)
        out, notes = evaluate(model, path, *words, "--unknown", "skip")
        assert out == evaluate(model, photos)[0]
        assert "Rows left out" in notes
        assert "zebra (6)" in notes


def test_absent_classes_one_image_a_class_and_other_case_are_scored(
    model: Path, photos: Path, tmp_path: Path
) -> None:
    for name in ("Bright", "dark"):
        (tmp_path / "few" / name).mkdir(parents=True)
        shutil.copy(photos / name.lower() / "0.png", tmp_path / "few" / name)
    out, notes = evaluate(model, tmp_path / "few")
    assert out.startswith("2 samples (all)\n")
    assert "Bright as bright" in notes
    assert "No sample has the class grey" in notes
    (tmp_path / "t.csv").write_text("file,label\nbright/0.png,bright\n")
    out, _ = evaluate(model, tmp_path / "t.csv", "--root", photos, "--json")
    assert json.loads(out)["samples"] == 1
    out, _ = evaluate(model, tmp_path / "few", "--json", "--report", tmp_path / "page.html")
    assert json.loads(out)["samples"] == 2
    assert "2 labelled samples" in (tmp_path / "page.html").read_text()


def test_train_is_scored_as_it_is_predicted(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    for name in ("bright", "dark"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(6):
            pixels = draws.integers(0, 256, (70, 70, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    data = ImageData.from_folder(tmp_path / "photos")
    choices = {
        "image_size": 32, "presize": 50, "augmentation": {"zoom": [1.0, 1.5]}, "device": "cpu"
    }  # fmt: skip
    learner = Learner(data, "small_cnn", choices=choices, quiet=True)
    predictor = Predictor.load(learner.export(tmp_path / "model"), device="cpu")
    [batch] = _batches(predictor, data, ["train"])
    prepare = predictor.preprocessor
    assert torch.equal(
        batch.input, prepare.on_device(prepare.encode(list(data.raw("train")))).input
    )


def test_one_amount_is_scored(photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    lines = ["file,label", *(f"{file},{n}.5" for n, file in enumerate(files))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    learner = Learner(ImageData.from_csv(tmp_path / "t.csv", size=16), quiet=True)
    export = learner.export(tmp_path / "model")
    (tmp_path / "one.csv").write_text("\n".join(lines[:2]) + "\n")
    with pytest.warns(FlambeauWarning, match=r"\[undefined-score\] r2 .*R² of one sample"):
        out, _ = evaluate(export, tmp_path / "one.csv")
    assert out.startswith("1 samples (all)\n")


def test_tags_are_read_as_in_training(photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.rglob("*.png"))
    tags = ["red;big", "red", "big"] * 6
    lines = ["photo,tags,note", *(f"{f},{t},n" for f, t in zip(files, tags, strict=True))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    data = ImageData.from_csv(
        tmp_path / "t.csv", "photo", "tags", size=16, options=ImageOptions(sep=";")
    )
    learner = Learner(data, quiet=True)
    export = learner.export(tmp_path / "model")
    (tmp_path / "new.csv").write_text("\n".join([lines[0], *lines[-4:]]) + "\n")
    out, _ = evaluate(export, tmp_path / "new.csv", "--json")
    named, _ = evaluate(
        export, tmp_path / "new.csv", "--json", "--target", "tags", "--sep", ";", "--file", "photo"
    )
    assert json.loads(out)["samples"] == 4
    assert out == named
    with pytest.raises(ArgumentError, match="--like has no meaning here"):
        evaluate(export, tmp_path / "new.csv", "--like", export)
    with pytest.raises(InputError, match=r"size is 32, but in the export .* it is 16"):
        evaluate(export, tmp_path / "new.csv", "--size", "32")


def test_one_part_of_data_with_parts_is_scored(model: Path, photos: Path, tmp_path: Path) -> None:
    for part, names in (("train", "012"), ("valid", "34"), ("test", "5")):
        for file in photos.rglob("*.png"):
            if file.stem in names:
                (tmp_path / part / file.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, tmp_path / part / file.parent.name)
    assert evaluate(model, tmp_path)[0].startswith("3 samples (test)\n")
    assert evaluate(model, tmp_path, "--part", "train")[0].startswith("9 samples (train)\n")
    every = evaluate(model, tmp_path, "--part", "all", "--report", tmp_path / "page.html")[0]
    assert every.startswith("18 samples (all: train, valid, test)\n")
    assert "18 train, valid, test samples" in (tmp_path / "page.html").read_text()
    shutil.rmtree(tmp_path / "test")
    assert evaluate(model, tmp_path)[0].startswith("6 samples (valid)\n")


def test_parts_drawn_by_group_are_no_parts_of_the_data() -> None:
    drawn = Split.by_group([0, 0, 1, 1, 2, 2, 3, 3], valid=0.25)
    assert parts_to_score(drawn, Part.auto) == ["train", "valid"]
    given = Split.from_indices([0, 1], [2, 3])
    assert parts_to_score(given, Part.auto) == ["valid"]
