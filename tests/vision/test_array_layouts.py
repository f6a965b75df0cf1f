"""Images in arrays of every memory layout and type, and one scale for all parts."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from flambeau.errors import InputError
from flambeau_vision import ImageData
from flambeau_vision.decode import decode

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 7, 3), dtype=np.uint8)
LABELS = [0, 1] * 10

_SAME: dict[str, Callable[[np.ndarray], Any]] = {
    "Fortran order": np.asfortranarray,
    "negative strides": lambda x: x[::-1].copy()[::-1],
    "mirrored": lambda x: x[..., ::-1].copy()[..., ::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "big-endian int": lambda x: x.astype(">i4"),
    "big-endian float": lambda x: x.astype(">f8"),
    "uint32": lambda x: x.astype(np.uint32),
    "half": lambda x: x.astype(np.float16),
    "long double": lambda x: x.astype(np.longdouble),
    "masked without masked entries": np.ma.array,
}


def stored(images: Any, **arguments: Any) -> np.ndarray:
    found = ImageData.from_arrays(images, LABELS, layout="HWC", **arguments).samples["image"]
    return found.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("convert", _SAME.values(), ids=_SAME)
def test_the_layout_of_images_does_not_matter(convert: Callable[[np.ndarray], Any]) -> None:
    assert np.array_equal(stored(convert(PIXELS)), PIXELS)
    assert np.array_equal(decode(convert(PIXELS)[0]), PIXELS[0])


def test_the_byte_order_of_16_bits_does_not_matter() -> None:
    images = PIXELS.astype(np.uint16) * 16  # 12 bits
    assert np.array_equal(stored(images), stored(images.astype(">u2")))
    assert np.array_equal(decode(images[0]), decode(images[0].astype(">u2")))


_UNREADABLE: dict[str, tuple[Callable[[], Any], str]] = {
    "masked": (lambda: np.ma.array(PIXELS, mask=PIXELS > 100), "masked entries"),
    "complex": (lambda: PIXELS + 1j, "complex"),
    "complex tensor": (lambda: torch.from_numpy(PIXELS) + 1j, "complex"),
    "sparse": (lambda: torch.from_numpy(PIXELS).to_sparse(), "to_dense"),
    "float8": (lambda: torch.zeros(20, 6, 7, 3).to(torch.float8_e4m3fn), "torch.float32"),
}


@pytest.mark.parametrize(("make", "message"), _UNREADABLE.values(), ids=_UNREADABLE)
def test_unreadable_images_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageData.from_arrays(make(), LABELS, layout="HWC")
    with pytest.raises(InputError, match=message):
        decode(make()[0])


UNIT = (PIXELS / 255).astype(np.float32)


def test_a_dark_part_keeps_the_scale_of_train() -> None:
    dark = np.where(PIXELS > 128, 1.0, 0.0).astype(np.float32)  # almost black in 0..255
    found = stored(PIXELS.astype(np.float32), valid=(dark, LABELS))
    assert np.array_equal(found[20:], dark)
    found = stored(UNIT, valid=(UNIT * np.float32(0.1), LABELS))
    assert found[20:].max() == 26  # not brightened to 255


@pytest.mark.parametrize("part", ["valid", "test", "calibration"])
def test_a_part_in_another_range_is_refused(part: str) -> None:
    for train, other in ((UNIT, PIXELS.astype(np.float32)), (PIXELS.astype(np.float32), UNIT)):
        for convert in (np.asarray, torch.from_numpy):
            with pytest.raises(InputError, match=rf"The {part} images.*by one factor"):
                ImageData.from_arrays(
                    convert(train), LABELS, layout="HWC", **{part: (convert(other), LABELS)}
                )


def test_bytes_beside_floats_have_their_own_scale() -> None:
    assert np.array_equal(stored(UNIT, valid=(PIXELS, LABELS))[20:], PIXELS)
    assert np.array_equal(stored(PIXELS, valid=(UNIT, LABELS))[20:], PIXELS)
