"""Images of 16 bits that use fewer: scaled by the range that the train images have."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flambeau import Learner, Predictor, Split
from flambeau.errors import InputError, PlanError
from flambeau_vision import ImageData, ImageOptions
from flambeau_vision.decode import decode

LABELS = ["a", "b"] * 6


def png(values: np.ndarray) -> bytes:
    """A PNG of 16-bit colour, which Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + end

    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def ramps(bits: int, n: int = 12) -> np.ndarray:
    """Return uint16 images that use all values of so many bits."""
    ramp = np.linspace(0, (1 << bits) - 1, 64).round().astype(np.uint16).reshape(8, 8)
    return np.stack([np.roll(ramp, row) for row in range(n)])


EIGHT = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)


def as_items(images: np.ndarray, form: str, folder: Path) -> list:
    if form == "array":
        return list(images)
    if form == "tensor":
        return [torch.from_numpy(image) for image in images]
    pillow = [Image.fromarray(image) for image in images]
    if form == "pillow":
        return pillow
    found = []
    for row, image in enumerate(pillow):
        buffer = io.BytesIO()
        image.save(buffer, format="TIFF" if form == "tif" else "PNG")
        path = folder / f"{row:02}.{'tif' if form == 'tif' else 'png'}"
        path.write_bytes(buffer.getvalue())
        found.append(buffer.getvalue() if form == "bytes" else path)
    return found


@pytest.mark.parametrize("form", ["array", "tensor", "pillow", "png", "tif", "bytes"])
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_items_use_the_whole_range_of_eight_bits(form: str, bits: int, tmp_path: Path) -> None:
    items = as_items(ramps(bits), form, tmp_path)
    data = ImageData.from_items(list(zip(items, LABELS, strict=True)))
    learner = Learner(data, quiet=True)
    choice = learner.plan["bits"]
    assert (choice.value, choice.source) == (bits, "rule")
    assert f"values up to {(1 << bits) - 1:,}" in choice.reason
    first = learner.built.preprocessor.encode([items[0]]).input[0, 0]
    assert np.abs(first.numpy().astype(int) - EIGHT).max() <= 1
    assert learner.built.dataset("train").inputs["image"].max() == 255


def test_colour_files_use_the_whole_range_too(tmp_path: Path) -> None:
    colours = np.stack([ramps(10), ramps(10)[:, ::-1], ramps(10)[:, :, ::-1]], axis=3)
    for row, values in enumerate(colours):
        path = tmp_path / "ab"[row % 2] / f"{row:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(values))
    learner = Learner(ImageData.from_folder(tmp_path), quiet=True)
    assert learner.plan["bits"].value == 10
    loaded = Predictor.load(learner.export(tmp_path / "model"))
    first = loaded.preprocessor.encode([tmp_path / "a" / "00.png"]).input[0].permute(1, 2, 0)
    assert np.array_equal(first.numpy(), np.rint(colours[0] / 1023 * 255))


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_stacked_arrays_and_predictions_are_scaled_alike(kind: str, tmp_path: Path) -> None:
    images = ramps(12)
    images = torch.from_numpy(images) if kind == "tensor" else images
    learner = Learner(ImageData.from_arrays(images, LABELS), quiet=True)
    assert learner.plan["bits"].value == 12
    train = learner.built.dataset("train")
    row = int(train.ids[0])
    pixels = learner.built.preprocessor.encode([images[row]]).input[0]
    assert torch.equal(train.inputs["image"][0], pixels)
    loaded = Predictor.load(learner.export(tmp_path / "model"))
    assert loaded.preprocessor.arguments()["pixels"]["bits"] == 12
    assert torch.equal(loaded.preprocessor.encode([images[row]]).input[0], pixels)


@pytest.mark.parametrize("form", ["stack", "array", "png"])
def test_only_train_decides_the_range(form: str, tmp_path: Path) -> None:
    images = ramps(10)
    images[9:] = ramps(14)[9:]
    split = Split.from_indices(range(9), range(9, 12))
    if form == "stack":
        data = ImageData.from_arrays(images, LABELS, split=split)
    else:
        items = as_items(images, form, tmp_path)
        data = ImageData.from_items(list(zip(items, LABELS, strict=True)), split=split)
    learner = Learner(data, quiet=True)
    assert learner.plan["bits"].value == 10
    # A valid pixel above the range of train is the brightest level.
    valid = learner.built.dataset("valid").inputs["image"]
    assert (valid == 255).sum() > 3 * 32


def test_images_of_eight_bits_are_not_scaled(tmp_path: Path) -> None:
    data = ImageData.from_items([(EIGHT, "a"), (EIGHT.T.copy(), "b")] * 6)
    learner = Learner(data, quiet=True)
    assert learner.plan["bits"].value == 16
    assert np.array_equal(learner.built.preprocessor.encode([EIGHT]).input[0, 0].numpy(), EIGHT)


def test_the_user_sets_the_bits(tmp_path: Path) -> None:
    items = list(zip(as_items(ramps(10), "png", tmp_path), LABELS, strict=True))
    for learner in (
        Learner(ImageData.from_items(items, options=ImageOptions(bits=16)), quiet=True),
        Learner(ImageData.from_items(items), choices={"bits": 16}, quiet=True),
    ):
        assert learner.plan["bits"].value == 16
        assert learner.built.preprocessor.encode([items[0][0]]).input.max() == 4  # 1023 / 257
    arrays = ImageData.from_arrays(ramps(10), LABELS, options=ImageOptions(bits=16))
    assert (
        arrays.dataset("train", Learner(arrays).built.preprocessor, {}).inputs["image"].max() == 4
    )
    with pytest.raises(PlanError, match=r"bits is 16, but it must be 10, .*ImageOptions\(bits="):
        Learner(ImageData.from_arrays(ramps(10), LABELS), choices={"bits": 16})
    with pytest.raises(PlanError, match="a whole number from 8 to 16"):
        Learner(ImageData.from_items(items), choices={"bits": 4})
    with pytest.raises(InputError, match="bits=4 is invalid"):
        ImageOptions(bits=4)


def test_sixteen_bits_keep_their_scale() -> None:
    values = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    wanted = np.rint(values.astype(np.float64) * 255 / 65_535)
    assert np.array_equal(decode(values)[:, :, 0], wanted)


def test_eight_bits_in_sixteen_are_refused_in_prediction() -> None:
    """A model of 8-bit images would read them as almost black."""
    data = ImageData.from_arrays(np.stack([EIGHT, EIGHT.T] * 6), LABELS[:12])
    prepare = Learner(data, quiet=True).built.preprocessor
    assert prepare.encode([EIGHT]).input.max() == EIGHT.max()
    for image in (EIGHT.astype(np.uint16), EIGHT.astype(">u2"), torch.tensor(EIGHT.astype("<u2"))):
        with pytest.raises(InputError, match=r"Item 1: has uint16 values up to .*'uint8'"):
            prepare.encode([EIGHT, image])
    dark = EIGHT.astype(np.float64) / 65_535  # the way out for an image that is that dark
    assert prepare.encode([dark]).input.max() <= 1
    prepare.encode([EIGHT.astype(np.uint16) * 257])
