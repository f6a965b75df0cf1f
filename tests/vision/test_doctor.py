"""The doctor on pictures: planted faults by their code, and silence on clean ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau import Learner
from flambeau.data.split import Split
from flambeau.doctor import CORE_CHECKS, Subject, combine_checks, diagnose
from flambeau_vision import ImageData
from flambeau_vision.checks import CHECKS
from flambeau_vision.demo import glyph_data


def noise(n: int, size: int = 16, seed: int = 0) -> np.ndarray:
    """Different pictures, of which those with an odd number are brighter on the left."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 200, (n, size, size), dtype=np.uint8)
    pictures[1::2, :, : size // 2] += 55
    return pictures


def labels(n: int) -> list[str]:
    return ["right", "left"] * (n // 2)


def write(folder: Path, pictures: np.ndarray, names: list[str]) -> Path:
    for picture, name in zip(pictures, names, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return folder


def only(learner: Learner, code: str, *, full: bool = False) -> Any:
    report = learner.doctor(full=full)
    assert set(report.codes) == {code}, str(report)
    return report.findings[0]


def test_arrays_and_folders_are_silent(tmp_path: Path) -> None:
    data = ImageData.from_arrays(noise(120), labels(120))
    assert Learner(data, quiet=True).doctor(full=True).ok
    names = [f"{label}/{row}.png" for row, label in enumerate(labels(120))]
    folder = ImageData.from_folder(write(tmp_path, noise(120), names))
    report = Learner(folder, quiet=True).doctor(full=True)
    assert report.ok, str(report)
    assert {check.code for check in report.checks} >= {check.code for check in CHECKS}


@pytest.mark.parametrize("weights", [0.1, 1.0])
def test_the_first_loss_of_small_cnn_is_that_of_guessing(weights: float) -> None:
    learner = Learner(glyph_data(400, 0), "small_cnn", quiet=True)
    with torch.no_grad():
        learner.model.head.weight.mul_(weights / 0.1)  # 1.0 is what torch would begin with
    if weights == 1.0:
        assert only(learner, "loss-at-start").evidence["loss"] > 3.5
    else:
        assert learner.doctor().ok, str(learner.doctor())


def test_arrays_that_are_in_train_and_valid() -> None:
    pictures = noise(120)
    pictures[110:] = pictures[:10]
    split = Split.given(range(90), range(90, 120))
    finding = only(
        Learner(ImageData.from_arrays(pictures, labels(120), split=split), quiet=True),
        "duplicates-across-parts",
    )
    assert finding.evidence["copies"] == 10


def test_files_that_are_in_train_and_valid(tmp_path: Path) -> None:
    pictures = noise(120)
    names = [
        f"{'valid' if row >= 90 else 'train'}/{label}/{row}.png"
        for row, label in enumerate(labels(120))
    ]
    pictures[110:] = pictures[:10]
    data = ImageData.from_folder(write(tmp_path, pictures, names))
    finding = only(Learner(data, quiet=True), "duplicates-across-parts")
    assert finding.evidence == {"pictures": 10, "of": 30, "with another label": 0}
    assert ".png" in finding.what


def test_pictures_that_only_look_the_same(tmp_path: Path) -> None:
    # Smooth ones, as photographs are, so that their look survives another size.
    blocks = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    pictures = [Image.fromarray(block).resize((32, 32)) for block in blocks]
    pictures[50:] = [picture.resize((24, 24)) for picture in pictures[:10]]
    paths = []
    for row, picture in enumerate(pictures):
        paths.append(tmp_path / f"{row}.png")
        picture.save(paths[-1])
    items = list(zip(paths, labels(60), strict=True))
    data = ImageData.from_items(items, split=Split.given(range(40), range(40, 60)))
    learner = Learner(data, quiet=True)
    assert learner.doctor().ok, str(learner.doctor())
    finding = only(learner, "near-duplicates", full=True)
    assert finding.evidence["pictures"] == 10


def test_series_that_a_split_tears_apart(tmp_path: Path) -> None:
    names = [
        f"{label}/patient_{row // 8:02}_{row % 8}.png" for row, label in enumerate(labels(120))
    ]
    folder = write(tmp_path, noise(120), names)
    finding = only(Learner(ImageData.from_folder(folder), quiet=True), "groups-across-parts")
    assert "patient_" in finding.what
    whole = ImageData.from_folder(folder)
    people = [Path(item).stem.rsplit("_", 1)[0] for item in whole.samples["item"]]
    kept = ImageData.from_folder(folder, split=Split.by_group(people))
    assert Learner(kept, quiet=True).doctor().ok


def test_another_normalisation_than_the_weights() -> None:
    data = ImageData.from_arrays(noise(40), labels(40))
    checks = [check for check in CHECKS if check.code == "normalisation-of-weights"]

    def codes(normalisation: Any, weights: str | None) -> tuple[str, ...]:
        values = {"architecture": "resnet18", "weights": weights, "normalisation": normalisation}

        def make() -> Any:
            raise AssertionError("a check of the plan must not build a model")

        return diagnose(Subject(data, values, make), checks).codes

    assert codes("train", "IMAGENET1K_V1") == ("normalisation-of-weights",)
    assert codes("weights", "IMAGENET1K_V1") == ()
    assert codes("train", None) == ()


def test_they_take_the_place_of_cores_and_have_sections() -> None:
    together = combine_checks(CORE_CHECKS, CHECKS)
    assert len(together) == len(CORE_CHECKS) + 1
    page = Path(__file__).parents[2] / "docs" / "doctor.md"
    text = page.read_text(encoding="utf-8")
    assert all(f"### {check.code}\n" in text for check in CHECKS)
