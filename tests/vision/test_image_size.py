"""Sizes of the model's input that are not square, and what is accepted as a size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau import Learner, Predictor
from flambeau.cli.data_arguments import parse_options
from flambeau.errors import InputError, PlanError
from flambeau_vision import ImageData, ImageOptions
from flambeau_vision.domain import DOMAIN
from flambeau_vision.resize import Geometry, parse_size, resize_pixels

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 60, 30, 3), dtype=np.uint8)
LABELS = ["a", "b"] * 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six images, 60 high and 30 wide."""
    for row, image in enumerate(IMAGES):
        path = tmp_path / "photos" / LABELS[row] / f"{row:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("given", "size"),
    [
        *((each, 28) for each in (28, "28", " 28 ", (28, 28), [28, 28], np.int64(28), "28x28")),
        *((each, (28, 20)) for each in ((28, 20), [28, 20], "28x20", "28 × 20", "28,20")),
    ],
)
def test_a_size_is_a_number_a_pair_or_text(given: object, size: object) -> None:
    assert parse_size(given) == size
    assert ImageOptions(size=given).size == size


@pytest.mark.parametrize(
    "given", [0, -3, 28.0, True, "", "big", "28x", "28x20x3", (28,) * 3, (28, 0), None, "2 8"]
)
def test_other_sizes_are_refused_with_their_value(given: object) -> None:
    with pytest.raises(InputError, match=r"is not a size in pixels.*\(224, 160\)"):
        parse_size(given)


def test_the_command_line_takes_height_and_width() -> None:
    assert parse_options(DOMAIN, "fit", ["--size", "28x20"]) == {"image_size": (28, 20)}
    assert parse_options(DOMAIN, "fit", ["--size=28"]) == {"image_size": 28}


def test_a_wrong_choice_of_the_size_is_refused_by_the_plan() -> None:
    data = ImageData.from_arrays(IMAGES, LABELS)
    for value in ("28", 0, [1, 2, 3], 2.5, True):
        with pytest.raises(PlanError, match=r"whole number of pixels.*or height and width"):
            Learner(data, choices={"image_size": value})
    with pytest.raises(PlanError, match="vit_b_16 takes square images"):
        Learner(data, "vit_b_16", choices={"image_size": [32, 16]})


def levels(height: int, width: int, where: str) -> np.ndarray:
    """Return an image with the column (x) or the row (y) as grey level."""
    grid = np.mgrid[0:height, 0:width][0 if where == "y" else 1]
    return grid.astype(np.uint8)[:, :, None]


@pytest.mark.parametrize(
    ("size", "direction", "first", "last"),
    [
        (20, "y", 15, 44),  # covered by 40 x 20, of which the rows 10 to 30 are kept: 15 to 45
        ((40, 20), "y", 0, 59),  # the image's own aspect ratio: nothing is cut
        ((40, 10), "x", 7, 22),  # covered by 40 x 20: half of the columns are kept
    ],
)
def test_crop_covers_the_size_and_cuts_the_centre(
    size: object, direction: str, first: int, last: int
) -> None:
    pixels = resize_pixels(levels(60, 30, direction), Geometry(size, 1))[:, :, 0].astype(int)
    assert pixels.shape == Geometry(size, 1).shape[1:]
    assert abs(pixels[0, 0] - first) <= 1
    assert abs(pixels[-1, -1] - last) <= 1


def test_pad_fits_the_image_into_the_size() -> None:
    white = np.full((60, 30, 1), 255, np.uint8)
    padded = resize_pixels(white, Geometry((20, 40), 1, "pad"))[:, :, 0]  # 20 x 10 in the middle
    assert padded.shape == (20, 40)
    assert np.array_equal(padded[10] > 0, (np.arange(40) >= 15) & (np.arange(40) < 25))
    assert resize_pixels(white, Geometry((20, 40), 1, "squash")).min() == 255


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("cache", ["memory", "files", "disk"])
def test_a_learner_trains_predicts_and_exports_at_height_and_width(
    folder: Path, tmp_path: Path, resize: str, cache: str
) -> None:
    options = ImageOptions(size=(40, 24), resize=resize, cache=cache, cache_folder=tmp_path / "c")
    data = ImageData.from_folder(folder, options=options)
    learner = Learner(data, quiet=True, choices={"num_workers": 0, "probe": "off"})
    assert learner.plan["image_size"].value == [40, 24]
    learner.fit(1)
    assert next(learner.built.batches("train")).input.shape[1:] == (3, 40, 24)
    files = data.raw("valid")
    wanted = [each.probabilities for each in learner.predict(files)]
    export = learner.export(tmp_path / "model")
    assert json.loads((export / "flambeau.json").read_text())["preprocessor"]["arguments"][
        "size"
    ] == [40, 24]
    assert [each.probabilities for each in Predictor.load(export).predict(files)] == wanted
    again = ImageData.from_folder(folder, options=ImageOptions(like=export))
    assert again.options.size == (40, 24)
    assert again.dataset("valid", learner.built.preprocessor, {"cache": "memory"}).inputs[
        "image"
    ].shape[2:] == (40, 24)


def test_augmentation_and_mixing_keep_height_and_width() -> None:
    data = ImageData.from_arrays(IMAGES, LABELS, size=(96, 48))
    strong = {
        "flip": True, "rotate_degrees": 10.0, "zoom": [1.0, 1.5], "shift": 0.1, "warp": 0.2,
        "brightness": 0.2, "contrast": 0.2, "erase": 0.3, "probability": 1.0,
    }  # fmt: skip
    mixing = {"mixup": 0.2, "cutmix": 1.0, "probability": 1.0}
    choices = {"augmentation": strong, "mixing": mixing, "probe": "off"}
    learner = Learner(data, quiet=True, choices=choices)
    learner.fit(1)
    assert np.isfinite(learner.evaluate()["loss"])
    with pytest.raises(PlanError, match="presize=120 reads square images"):
        Learner(data, quiet=True, choices={**choices, "presize": 120}).fit(1)


def test_networks_of_torchvision_take_height_and_width() -> None:
    data = ImageData.from_arrays(IMAGES, LABELS, size=(64, 32))
    model = Learner(data, "mobilenet_v3_small", quiet=True).model.eval()
    assert model(torch.zeros(2, 3, 64, 32)).shape == (2, 2)
