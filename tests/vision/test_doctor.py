"""The doctor on images: planted faults are found, clean data have no findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau import Learner
from flambeau.data.split import Split
from flambeau.doctor import CORE_CHECKS, TrainingSetup, combine_checks, diagnose
from flambeau_vision import ImageData, ImageOptions, load_images
from flambeau_vision.checks import CHECKS
from flambeau_vision.demo import glyph_data


def noise(n: int, size: int = 16, seed: int = 0) -> np.ndarray:
    """Return different images; those with an odd number are brighter on the left."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 200, (n, size, size), dtype=np.uint8)
    images[1::2, :, : size // 2] += 55
    return images


def labels(n: int) -> list[str]:
    return ["right", "left"] * (n // 2)


def write(folder: Path, images: np.ndarray, names: list[str]) -> Path:
    for image, name in zip(images, names, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def only(learner: Learner, code: str, *, full: bool = False) -> Any:
    report = learner.doctor(full=full)
    assert set(report.codes) == {code}, str(report)
    return report.findings[0]


def test_clean_arrays_and_folders_have_no_findings(tmp_path: Path) -> None:
    data = ImageData.from_arrays(noise(120), labels(120))
    assert Learner(data, quiet=True).doctor(full=True).ok
    names = [f"{label}/{row}.png" for row, label in enumerate(labels(120))]
    folder = ImageData.from_folder(write(tmp_path, noise(120), names))
    report = Learner(folder, quiet=True).doctor(full=True)
    assert report.ok, str(report)
    assert {check.code for check in report.checks} >= {check.code for check in CHECKS}


@pytest.mark.parametrize("weights", [0.1, 1.0])
def test_initial_loss_of_small_cnn_is_that_of_guessing(weights: float) -> None:
    learner = Learner(glyph_data(400, 0), "small_cnn", quiet=True)
    with torch.no_grad():
        learner.model.head.weight.mul_(weights / 0.1)  # 1.0: torch's default initialisation
    if weights == 1.0:
        assert only(learner, "high-initial-loss").evidence["loss"] > 3.5
    else:
        assert learner.doctor().ok, str(learner.doctor())


def test_arrays_in_train_and_valid_are_found() -> None:
    images = noise(120)
    images[110:] = images[:10]
    split = Split.from_indices(range(90), range(90, 120))
    finding = only(
        Learner(ImageData.from_arrays(images, labels(120), split=split), quiet=True),
        "duplicates-across-parts",
    )
    assert finding.evidence["copies"] == 10


def test_files_in_train_and_valid_are_found(tmp_path: Path) -> None:
    images = noise(120)
    names = [
        f"{'valid' if row >= 90 else 'train'}/{label}/{row}.png"
        for row, label in enumerate(labels(120))
    ]
    images[110:] = images[:10]
    data = ImageData.from_folder(write(tmp_path, images, names))
    finding = only(Learner(data, quiet=True), "duplicates-across-parts")
    assert finding.evidence == {"images": 10, "of": 30, "with another label": 0}
    assert ".png" in finding.what


@pytest.mark.slow
def test_near_duplicates_are_found(tmp_path: Path) -> None:
    # Smooth ones, like photographs, so that resizing hardly changes their hash.
    blocks = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    images = [Image.fromarray(block).resize((32, 32)) for block in blocks]
    images[50:] = [image.resize((24, 24)) for image in images[:10]]
    paths = []
    for row, image in enumerate(images):
        paths.append(tmp_path / f"{row}.png")
        image.save(paths[-1])
    items = list(zip(paths, labels(60), strict=True))
    data = ImageData.from_items(items, split=Split.from_indices(range(40), range(40, 60)))
    learner = Learner(data, quiet=True)
    assert learner.doctor().ok, str(learner.doctor())
    finding = only(learner, "near-duplicates", full=True)
    assert finding.evidence["images"] == 10


def test_filename_groups_across_parts_are_found(tmp_path: Path) -> None:
    names = [
        f"{label}/patient_{row // 8:02}_{row % 8}.png" for row, label in enumerate(labels(120))
    ]
    folder = write(tmp_path, noise(120), names)
    finding = only(Learner(ImageData.from_folder(folder), quiet=True), "groups-across-parts")
    assert "patient_" in finding.what
    data = ImageData.from_folder(folder)
    people = [Path(item).stem.rsplit("_", 1)[0] for item in data.samples["image"]]
    kept = ImageData.from_folder(folder, split=Split.by_group(people))
    assert Learner(kept, quiet=True).doctor().ok


def test_normalisation_other_than_the_weights_is_found() -> None:
    data = ImageData.from_arrays(noise(40), labels(40))
    checks = [check for check in CHECKS if check.code == "normalisation-of-weights"]

    def codes(normalisation: Any, weights: str | None) -> tuple[str, ...]:
        values = {"architecture": "resnet18", "weights": weights, "normalisation": normalisation}

        def make() -> Any:
            raise AssertionError("a check of the plan must not build a model")

        return diagnose(TrainingSetup(data, values, make), checks).codes

    assert codes("train", "IMAGENET1K_V1") == ("normalisation-of-weights",)
    assert codes("weights", "IMAGENET1K_V1") == ()
    assert codes("train", None) == ()


def test_checks_replace_those_of_core_and_have_sections() -> None:
    combined = combine_checks(CORE_CHECKS, CHECKS)
    assert len(combined) == len(CORE_CHECKS) + 2
    page = Path(__file__).parents[2] / "docs" / "doctor.md"
    text = page.read_text(encoding="utf-8")
    assert all(f"### {check.code}\n" in text for check in CHECKS)


def parts_folder(folder: Path, images: np.ndarray) -> ImageData:
    """Return 60 train, 20 valid and 40 test images in files, the last 10 copies of the first."""
    images[110:] = images[:10]
    parts = ["train"] * 60 + ["valid"] * 20 + ["test"] * 40
    names = [
        f"{part}/{label}/{row}.png"
        for row, (part, label) in enumerate(zip(parts, labels(120), strict=True))
    ]
    write(folder, images, names)
    return ImageData.from_folder(folder, options=ImageOptions(verify=False))


@pytest.mark.parametrize("cache", ["memory", "files"])
def test_a_fit_and_the_doctor_do_not_read_the_test_files(
    tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    open_image = load_images.decode

    def recorded(item: Any, **options: Any) -> Any:
        read.append(str(item))
        return open_image(item, **options)

    data = parts_folder(tmp_path, noise(120))
    monkeypatch.setattr(load_images, "decode", recorded)
    monkeypatch.setattr(Path, "read_bytes", lambda path: recorded(path) and b"")
    learner = Learner(data, choices={"cache": cache, "num_workers": 0}, quiet=True)
    learner.doctor()
    learner.fit(1)
    assert len(read) >= 80
    assert not [path for path in read if "/test/" in path]
    learner.evaluate("test")
    assert len({path for path in read if "/test/" in path}) == 40


def test_copies_in_a_test_part_are_found_on_request(tmp_path: Path) -> None:
    learner = Learner(parts_folder(tmp_path, noise(120)), quiet=True)
    assert "duplicates-across-parts" not in learner.doctor().codes
    finding = only(learner, "duplicates-across-parts", full=True)
    assert finding.evidence == {"images": 10, "of": 40, "with another label": 0}


def test_files_are_compared_before_a_fit_only_up_to_a_number_of_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = noise(120)
    images[110:] = images[:10]
    names = [
        f"{'valid' if row >= 90 else 'train'}/{label}/{row}.bmp"  # all of one size
        for row, label in enumerate(labels(120))
    ]
    learner = Learner(ImageData.from_folder(write(tmp_path, images, names)), quiet=True)
    assert learner.doctor().codes == ("duplicates-across-parts",)
    monkeypatch.setattr("flambeau_vision.checks._MAX_HASHED_BYTES", 120 * 1_000)  # 1,334 each
    assert learner.doctor().codes == ()
