"""Crop, squash or pad: chosen from the proportions of the train images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flambeau import Learner, Plan, Predictor
from flambeau.cli.data_arguments import parse_options
from flambeau.errors import InputError, PlanError
from flambeau_vision import ImageData, ImageOptions
from flambeau_vision.domain import DOMAIN


def folder_of(folder: Path, shapes: list[tuple[int, int]]) -> Path:
    """Write images of (width, height) to two classes: black, with a white end on the left."""
    for row, (width, height) in enumerate(shapes):
        pixels = np.zeros((height, width), np.uint8)
        pixels[:, : width // 6] = 255
        path = folder / ("ant", "bee")[row % 2] / f"{row:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


SQUARE, PHOTO = [(32, 32)] * 20, [(48, 32), (32, 48)] * 10
WIDE = [(96, 32)] * 20
MIXED = [(64 + 8 * row, 32) for row in range(20)]  # 2.0 to 6.75


@pytest.mark.parametrize(
    ("shapes", "resize", "words"),
    [
        (SQUARE, "crop", "the model's proportions"),
        (PHOTO, "crop", "half of the images lose more than 33%"),
        (WIDE, "squash", "Median width/height 3 .*similar in all.*more than 67%"),
        ([(h, w) for w, h in WIDE], "squash", "Median width/height 0.33"),
        (MIXED, "pad", "from .*with its proportions"),
    ],
)
def test_the_plan_keeps_what_a_crop_would_cut_off(
    tmp_path: Path, shapes: list[tuple[int, int]], resize: str, words: str
) -> None:
    data = ImageData.from_folder(folder_of(tmp_path, shapes))
    learner = Learner(data, quiet=True)
    choice = learner.plan["resize"]
    assert (choice.value, choice.source) == (resize, "rule")

    assert re.search(words, choice.reason), choice.reason
    assert learner.built.preprocessor.arguments()["resize"] == resize
    if shapes in (WIDE, MIXED):  # the white end is in the model's input
        assert learner.built.dataset("train").inputs["image"].amax(dim=(1, 2, 3)).min() > 200
    assert "cropped-images" not in learner.doctor().codes


def test_arrays_are_judged_by_their_shape() -> None:
    images = np.zeros((20, 20, 60), np.uint8)
    images[:, :, :10] = 255
    learner = Learner(ImageData.from_arrays(images, ["a", "b"] * 10), quiet=True)
    assert learner.plan["resize"].value == "squash"
    tall = ImageData.from_arrays(images, ["a", "b"] * 10, size=(20, 60))
    assert Learner(tall, quiet=True).plan["resize"].value == "crop"  # nothing is cut off


def test_the_user_chooses_by_options_choices_and_the_command_line(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, WIDE)
    by_option = Learner(ImageData.from_folder(folder, options=ImageOptions(resize="pad")))
    by_choice = Learner(ImageData.from_folder(folder), choices={"resize": "pad"})
    words = parse_options(DOMAIN, "fit", ["--resize", "pad"])
    by_word = Learner(ImageData.from_path(folder, words))
    for learner in (by_option, by_choice, by_word):
        assert (learner.plan["resize"].value, learner.plan["resize"].source) == ("pad", "user")
        assert learner.built.preprocessor.arguments()["resize"] == "pad"
    with pytest.raises(PlanError, match="'crop', 'squash' or 'pad'"):
        Learner(ImageData.from_folder(folder), choices={"resize": "stretch"})
    with pytest.raises(InputError, match="'crop', 'squash' or 'pad'"):
        ImageData.from_path(folder, {"resize": "stretch"})


def test_a_crop_that_the_user_set_is_reported(tmp_path: Path) -> None:
    data = ImageData.from_folder(folder_of(tmp_path, WIDE), options=ImageOptions(resize="crop"))
    report = Learner(data, quiet=True).doctor()
    [finding] = [each for each in report.findings if each.code == "cropped-images"]
    assert finding.evidence["share of train images"] == 1.0
    assert finding.evidence["median share cut off"] == pytest.approx(2 / 3, abs=0.01)
    assert "--resize pad" in finding.fix


def test_a_minority_of_wide_images_is_reported_too(tmp_path: Path) -> None:
    shapes = [(96, 32) if row % 3 == 0 else (32, 32) for row in range(40)]
    learner = Learner(ImageData.from_folder(folder_of(tmp_path, shapes)), quiet=True)
    assert learner.plan["resize"].value == "crop"
    assert "cropped-images" in learner.doctor().codes


def test_an_export_and_data_read_like_it_keep_the_method(tmp_path: Path) -> None:
    learner = Learner(ImageData.from_folder(folder_of(tmp_path / "w", WIDE)), quiet=True)
    export = learner.export(tmp_path / "model")
    assert Predictor.load(export).preprocessor.arguments()["resize"] == "squash"
    square = folder_of(tmp_path / "s", SQUARE)
    like = ImageData.from_folder(square, options=ImageOptions(like=export))
    assert Learner(like, quiet=True).plan["resize"].value == "squash"
    started = Learner(like, start=export, quiet=True)
    assert started.plan["resize"].value == "squash"
    again = Plan.from_json(learner.plan.to_json())
    assert Learner(learner.data, plan=again, quiet=True).plan["resize"].value == "squash"
