"""A class that the model cannot learn, because no train image has it, is refused in every part."""

from __future__ import annotations

import numpy as np
import pytest

from flambeau.data import Split
from flambeau.errors import SplitError
from flambeau_vision import ImageData


@pytest.mark.parametrize("part", ["valid", "test", "calibration"])
def test_a_class_without_train_images_is_named(part: str) -> None:
    images = np.arange(8 * 4 * 4, dtype=np.uint8).reshape(8, 4, 4)
    labels = ["a", "b", "a", "b", "a", "b", "a", "c"]
    rows: dict[str, list[int]] = {"valid": [4], "test": [5], "calibration": [6]}
    rows[part] = [*rows[part], 7]
    split = Split.from_indices([0, 1, 2, 3], rows["valid"], rows["test"], rows["calibration"])
    with pytest.raises(SplitError, match=f"1 class has images in {part} but none in train: c"):
        ImageData.from_arrays(images, labels, split=split)
    whole = Split.from_indices([0, 1, 2, 3, 7], [4], [5], [6])
    assert ImageData.from_arrays(images, labels, split=whole).targets.names == ("a", "b", "c")
