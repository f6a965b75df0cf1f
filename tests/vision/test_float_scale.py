"""Float images in predictions have the scale of the train images, which the artefact stores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau import Learner, Predictor, Split
from flambeau.errors import FlambeauWarning, InputError, PlanError
from flambeau_vision import ImageData, ImageOptions

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
PIXELS[:, 0, 0] = 255
LABELS = [0, 1] * 10
UNIT = (PIXELS / 255).astype(np.float32)
FULL = PIXELS.astype(np.float32)
# Black and almost black pixels of 0..255; by its own largest value it would be in 0..1.
DARK = (PIXELS[0] > 128).astype(np.float32)


def from_arrays(images: Any, **given: Any) -> ImageData:
    return ImageData.from_arrays(images, LABELS, valid=4, layout="HWC", **given)


def from_items(images: Any, **given: Any) -> ImageData:
    return ImageData.from_items(list(zip(images, LABELS, strict=True)), valid=4, **given)


def from_tensors(images: Any, **given: Any) -> ImageData:
    return from_items([torch.tensor(image).permute(2, 0, 1) for image in images], **given)


class Pairs:
    """A data set of pairs (image, label)."""

    def __init__(self, images: Any) -> None:
        self.images, self.targets = images, LABELS

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index], LABELS[index]


def from_datasets(images: Any, **given: Any) -> ImageData:
    return ImageData.from_datasets(Pairs(images), valid=4, **given)


SOURCES = [from_arrays, from_items, from_tensors, from_datasets]


def learner_of(data: ImageData, **choices: Any) -> Learner:
    return Learner(data, "small_cnn", quiet=True, choices={"probe": "off", **choices})


def encoded(learner: Learner, item: Any) -> np.ndarray:
    pixels = learner.built.preprocessor.encode([item]).input[0]
    return pixels.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("read", SOURCES)
def test_predictions_have_the_scale_of_train(read: Callable[..., ImageData]) -> None:
    full, unit = learner_of(read(FULL)), learner_of(read(UNIT))
    assert np.array_equal(encoded(full, DARK), DARK)
    assert np.array_equal(encoded(full, torch.tensor(DARK).permute(2, 0, 1)), DARK)
    assert np.array_equal(encoded(unit, UNIT[0] / 255), np.rint(PIXELS[0] / 255))
    for learner, item in ((full, FULL[0]), (unit, UNIT[0]), (full, PIXELS[0]), (unit, PIXELS[0])):
        assert np.array_equal(encoded(learner, item), PIXELS[0])
    for learner, white, largest in ((full, 255, 255.0), (unit, 1, 1.0)):
        choice = learner.plan["white"]
        assert (choice.value, choice.source) == (white, "rule")
        assert choice.evidence["float_max"] == largest
        assert f"in 0..{white}" in choice.reason


@pytest.mark.parametrize("read", SOURCES)
def test_a_dark_train_image_has_the_scale_of_all(read: Callable[..., ImageData]) -> None:
    images = FULL.copy()
    images[3] = DARK
    learner = learner_of(read(images))
    part = next(part for part in ("train", "valid") if 3 in learner.data.split.part(part))
    dataset = learner.built.dataset(part)
    stored = dataset.inputs["image"][dataset.ids.tolist().index(3)]
    assert np.array_equal(stored.permute(1, 2, 0).numpy(), DARK)


@pytest.mark.parametrize("read", SOURCES)
def test_values_outside_of_the_scale_are_refused(read: Callable[..., ImageData]) -> None:
    learner = learner_of(read(UNIT))
    for item, found in (
        (FULL[0], rf"up to {FULL[0].max():g}, but the floats .* in 0\.\.1"),
        (UNIT[0] * 1.01, r"up to 1\.01"),
        (np.where(DARK > 0, np.nan, UNIT[0]), "nan"),
        (UNIT[0] - 0.5, r"from -0\.5"),
        (np.where(DARK > 0, np.inf, UNIT[0]), "inf"),
    ):
        with pytest.raises(InputError, match=rf"Item 1.*{found}"):
            learner.predict([UNIT[0], item])
    rounding = UNIT[0] * np.float32(1 + 1e-6)  # of a resize in float32
    assert np.array_equal(encoded(learner, rounding), PIXELS[0])
    with pytest.raises(InputError, match="from 0 to 300"):
        learner_of(read(FULL)).predict([FULL[0] / FULL[0].max() * 300])


@pytest.mark.parametrize("read", [from_items, from_tensors, from_datasets])
def test_images_of_two_scales_are_refused(read: Callable[..., ImageData]) -> None:
    images = FULL.copy()
    images[3] = UNIT[3]
    with pytest.raises(
        InputError, match=r"3.* up to 1, but those of the train images .* by one fac"
    ):
        read(images)
    learner = learner_of(read(images, options=WHITE_255))
    with pytest.warns(FlambeauWarning, match="almost black"):
        assert np.array_equal(encoded(learner, UNIT[3]), UNIT[3] > 0.5)


WHITE_1, WHITE_255 = ImageOptions(white=1), ImageOptions(white=255)


@pytest.mark.parametrize("read", [from_items, from_tensors])
def test_values_slightly_above_1_are_not_taken_for_black(read: Callable[..., ImageData]) -> None:
    """Bicubic resizing of 0..1 exceeds 1 slightly; in 0..255 such an image would be black."""
    images = list(FULL)
    images[3] = UNIT[3] * 1.02
    with pytest.raises(InputError, match=r"values up to 1\.02, but those of the train images"):
        read(images)
    assert read(images, options=ImageOptions(white=255)).facts()["white"] == 255
    parts = {"valid": (UNIT[:4] * 1.02, LABELS[:4])}
    with pytest.raises(InputError, match=r"array of valid images has float values up to 1\.02"):
        ImageData.from_arrays(FULL, LABELS, layout="HWC", **parts)
    learner = Learner(read(FULL), "small_cnn", quiet=True)
    with pytest.warns(FlambeauWarning, match="1 of 2 images .*are almost black"):
        learner.predict([FULL[0], UNIT[1] * 1.02])


@pytest.mark.parametrize("images", [UNIT, FULL])
def test_floats_of_another_part_than_train_set_the_scale(images: Any) -> None:
    data = ImageData.from_arrays(
        PIXELS, LABELS, layout="HWC", valid=(images[:4], LABELS[:4]), test=(images[4:6], [0, 1])
    )
    assert data.facts()["white"] == (1 if images is UNIT else 255)
    assert Learner(data, "small_cnn", quiet=True).plan["white"].value == data.facts()["white"]
    for row, item in enumerate(data.raw("valid")):
        assert np.array_equal(np.asarray(item), np.asarray(data.raw("train")[row]))
    with pytest.raises(InputError, match=r"those of valid in 0..1, those of test in"):
        ImageData.from_arrays(
            PIXELS, LABELS, layout="HWC", valid=(UNIT[:4], LABELS[:4]), test=(FULL[4:6], [0, 1])
        )


@pytest.mark.parametrize("read", SOURCES)
def test_the_user_sets_the_scale(read: Callable[..., ImageData]) -> None:
    for images in (UNIT, PIXELS):  # also without an image of floats in train
        learner = learner_of(read(images, options=WHITE_255))
        assert (learner.plan["white"].value, learner.plan["white"].source) == (255, "user")
        assert np.array_equal(encoded(learner, DARK), DARK)
        assert np.array_equal(encoded(learner_of(read(images, options=WHITE_1)), DARK), DARK * 255)
    with pytest.raises(
        InputError, match=r"up to 2\d\d, but the floats of these data are in 0\.\.1"
    ):
        read(FULL, options=WHITE_1)
    with pytest.raises(PlanError, match=r"white is 1, but it must be 255, .*ImageOptions\(white="):
        learner_of(read(FULL), white=1)
    assert learner_of(read(PIXELS), white=255).plan["white"].value == 255
    with pytest.raises(PlanError, match="1, 255 or None"):
        learner_of(read(PIXELS), white=2)
    for value in (2, "1", True, 0):
        with pytest.raises(InputError, match=r"white=.* is invalid"):
            ImageOptions(white=value)  # pyright: ignore[reportArgumentType]


def test_pillow_images_of_floats_have_the_scale_of_train() -> None:
    def pillow(images: Any) -> list[Any]:
        return [Image.fromarray(image[:, :, 0]) for image in images]

    assert pillow(UNIT)[0].mode == "F"
    dark = Image.fromarray(DARK[:, :, 0])
    for images, white in ((UNIT, 1), (FULL, 255)):
        data = from_items(pillow(images))
        assert data.facts()["white"] == white
        learner = learner_of(data)
        expected = DARK[:, :, :1] * (255 if white == 1 else 1)
        assert np.array_equal(encoded(learner, dark), expected)
        item = np.asarray(data.raw("train")[0]).squeeze()
        assert item.max() > 200
    with pytest.raises(InputError, match=r"one of them is in 0..1 and the other in 0..255"):
        from_items([*pillow(FULL[:19]), *pillow(UNIT[19:])])
    upright = from_items(pillow(FULL))
    turned = pillow(FULL[:1])[0]
    turned.getexif()[0x0112] = 6  # a quarter turn
    assert np.array_equal(
        encoded(learner_of(upright), turned)[:, :, 0], np.rot90(FULL[0, :, :, 0], -1)
    )


def test_unscaled_floats_are_named_in_a_warning() -> None:
    learner = learner_of(from_arrays(FULL))
    with pytest.warns(FlambeauWarning, match=r"1 of 2 images \(the first: item 1\).*by 255"):
        learner.predict([FULL[0], UNIT[1]])


def test_drawn_train_rows_have_the_range_of_all() -> None:
    images = UNIT.copy()
    images[19] *= 255
    split = Split.from_indices(range(16), range(16, 20))
    with pytest.raises(InputError, match=r"Image 19 has .* up to 255, .*train images only up to 1"):
        ImageData.from_arrays(images, LABELS, layout="HWC", split=split)


_PREDICT = """
import sys, numpy as np
from flambeau import Predictor
predictor = Predictor.load(sys.argv[1])
items = np.load(sys.argv[2])
np.save(sys.argv[3], predictor.preprocessor.encode(list(items)).input.numpy())
print([prediction.probability for prediction in predictor.predict(list(items))])
try:
    predictor.predict([items[0] + 256])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("images", "white"), [(FULL, 255), (UNIT, 1)])
def test_an_export_reads_floats_as_in_training(
    images: np.ndarray, white: int, tmp_path: Path
) -> None:
    learner = learner_of(from_arrays(images))
    folder = learner.export(tmp_path / "model")
    items = [images[0], DARK, images[1] * np.float32(0.3)]
    loaded = Predictor.load(folder)
    assert loaded.preprocessor.arguments()["pixels"]["white"] == white
    pixels = loaded.preprocessor.encode(items).input
    assert torch.equal(pixels, learner.built.preprocessor.encode(items).input)
    assert pixels[1].max() == (1 if white == 255 else 255)
    like = from_arrays(images, options=ImageOptions(like=folder))
    assert Learner(like, "small_cnn", quiet=True).plan["white"].value == white
    with pytest.raises(InputError, match=r"white is .* but in the export"):
        ImageOptions(like=folder, white=1 if white == 255 else 255)


@pytest.mark.slow
def test_a_new_process_reads_floats_as_in_training(tmp_path: Path) -> None:
    learner = learner_of(from_arrays(FULL))
    items = np.stack([FULL[0], DARK, FULL[1] * np.float32(0.3)])
    np.save(tmp_path / "items.npy", items)
    folder = learner.export(tmp_path / "model")
    arguments = [str(folder), str(tmp_path / "items.npy"), str(tmp_path / "pixels.npy")]
    command = [sys.executable, "-c", _PREDICT, *arguments]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    probabilities, error = shown.splitlines()
    expected = [prediction.probability for prediction in learner.predict(list(items))]
    assert json.loads(probabilities) == pytest.approx(expected, abs=1e-6)  # other thread counts
    assert error.startswith("InputError Item 0")
    pixels = learner.built.preprocessor.encode(list(items)).input.numpy()
    assert np.array_equal(np.load(tmp_path / "pixels.npy"), pixels)
