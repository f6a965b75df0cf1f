"""Float pixels are read as 0..1 or 0..255 only where this is clear."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flambeau.errors import InputError
from flambeau_vision import ImageData
from flambeau_vision.decode import decode

UNIT = np.random.default_rng(0).random((20, 6, 6, 3)).astype(np.float32)
LABELS = [0, 1] * 10


@pytest.mark.parametrize("factor", [1.001, 1.4, 8.0])
def test_floats_slightly_above_one_are_refused(factor: float) -> None:
    images = UNIT / UNIT.max() * np.float32(factor)
    for given in (images, torch.from_numpy(images).permute(0, 3, 1, 2)):
        with pytest.raises(InputError, match=rf"train images has float values up to {factor:g}"):
            ImageData.from_arrays(given, LABELS)
    brightest = images[images.reshape(20, -1).max(1).argmax()]
    with pytest.raises(InputError, match="neither clearly"):
        decode(brightest)


def test_a_valid_part_slightly_above_one_is_refused() -> None:
    """Train is within 0..1; valid, by one bicubic overshoot, is not."""
    valid = UNIT.copy()
    valid[3, 2, 1, 0] = 1.02
    with pytest.raises(InputError, match=r"valid images has float values up to 1\.02"):
        ImageData.from_arrays(UNIT, LABELS, valid=(valid, LABELS))


def test_clear_ranges_are_read() -> None:
    full = UNIT / UNIT.max() * 255
    expected = np.rint(full).astype(np.uint8).transpose(0, 3, 1, 2)
    for given in (full, UNIT / UNIT.max(), expected.transpose(0, 2, 3, 1).astype(np.float64)):
        found = ImageData.from_arrays(given, LABELS).samples["image"].numpy()
        assert np.abs(found.astype(int) - expected).max() <= 1
    whole = np.array([[0.0, 3.0], [2.0, 1.0]])  # whole numbers, such as classes of a mask
    assert np.array_equal(decode(whole)[:, :, 0], whole)
