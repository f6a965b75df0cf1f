import pytest
import torch

from flambeau import random as keyed
from flambeau_vision.augmentation_settings import Augmentation
from flambeau_vision.random_erasing import MIN_SHARE, N_DRAWS, erase, erase_boxes

N = 3000


def drawn(n: int = N) -> torch.Tensor:
    return keyed.uniform(0, "test", 0, torch.arange(n), N_DRAWS)


@pytest.mark.parametrize("size", [(128, 128), (60, 200)])
@pytest.mark.parametrize("most", [0.33, 0.8])
def test_boxes_have_the_drawn_share(size: tuple[int, int], most: float) -> None:
    draws = drawn()
    boxes = erase_boxes(Augmentation(erase=most, probability=0.5), draws, size)
    left, top, right, bottom = boxes.unbind(1)
    erased = draws[:, 0] < 0.5
    assert (boxes[~erased] == 0).all()
    share = ((right - left) * (bottom - top))[erased] / (size[0] * size[1])
    expected = (MIN_SHARE + (most - MIN_SHARE) * draws[:, 1])[erased]
    # Each side is rounded by at most half a pixel, of at least 60 · sqrt(0.02 · 0.3) = 4.6.
    sides = torch.stack([right - left, bottom - top], dim=1)[erased]
    tolerance = (0.5 * sides.sum(1) + 0.25) / (size[0] * size[1])
    assert ((share - expected).abs() <= tolerance + 1e-6).all()
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (right <= size[1]).all()
    assert (bottom <= size[0]).all()
    # Boxes reach the first and the last column and row.
    assert right.max() == size[1]
    assert bottom.max() == size[0]
    assert left[erased].min() == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_only_the_box_of_the_sample_changes(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (40, 3, 20, 30)).to(dtype)
    kept = images.clone()
    boxes = erase_boxes(Augmentation(erase=0.4), drawn(40), (20, 30))
    colours = torch.randint(0, 256, (40, 3)).float()
    result = erase(images, boxes, colours)
    assert result.dtype == dtype
    assert torch.equal(images, kept)
    for image, changed, (left, top, right, bottom), colour in zip(
        images, result, boxes.tolist(), colours, strict=True
    ):
        expected = image.clone()
        expected[:, top:bottom, left:right] = colour.to(dtype).view(3, 1, 1)
        assert torch.equal(changed, expected)
    different = {tuple(box) for box in boxes.tolist() if any(box)}
    assert len(different) > 20


def test_nothing_is_erased_if_it_is_off() -> None:
    assert not erase_boxes(Augmentation(erase=0.0), drawn(), (20, 20)).any()
