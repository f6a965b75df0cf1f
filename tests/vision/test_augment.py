import math

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau_vision.augment import Augment, Augmentation, matrices, move, warp


def smooth(n: int, height: int, width: int, channels: int = 1) -> torch.Tensor:
    """float32 images in 0..255 without hard edges."""
    coarse = torch.rand(n, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    return 255 * torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(
        0, 1
    )


def batch_of(images: torch.Tensor, indices: list[int], epoch: int = 0) -> Batch:
    return Batch({"image": images}, indices=torch.tensor(indices), epoch=epoch)


@pytest.mark.parametrize("shape", [(40, 40), (30, 50)])
@pytest.mark.parametrize("flip", [False, True])
def test_one_matrix_is_what_torchvision_does_image_by_image(
    shape: tuple[int, int], flip: bool
) -> None:
    height, width = shape
    images = smooth(4, height, width, 3) / 255
    for angle, zoom, dx, dy in [(8.0, 1.0, 0, 0), (-10.0, 1.1, 2, -1), (0.0, 0.9, 0, 3)]:
        cos, sin = (f(math.radians(angle)) * zoom for f in (math.cos, math.sin))
        sign = -1.0 if flip else 1.0
        matrix = torch.tensor([[cos * sign, -sin, dx], [sin * sign, cos, dy]])
        given = warp(images, matrix.repeat(4, 1, 1))
        for image, result in zip(images, given, strict=True):
            image = reference.horizontal_flip(image) if flip else image
            expected = reference.affine(
                image, angle, [dx, dy], zoom, [0.0, 0.0], InterpolationMode.BILINEAR
            )
            # The border is mirrored here and black there.
            inside = (..., slice(9, -9), slice(9, -9))
            assert (result - expected)[inside].abs().max() < 0.02


def test_the_drawn_matrices_hold_to_their_ranges() -> None:
    draws = keyed.uniform(0, "test", 0, torch.arange(4000), 8)
    everything = Augmentation(rotate_degrees=20, zoom=(0.8, 1.25), shift=0.1, probability=0.5)
    matrix = matrices(everything, draws, torch.Size((40, 60)))
    zoom = matrix[:, :, 1].norm(dim=1)
    angle = torch.atan2(-matrix[:, 0, 1], matrix[:, 1, 1]).rad2deg()
    flipped = torch.det(matrix[:, :, :2]) < 0
    assert 0.46 < flipped.float().mean() < 0.54
    assert 0.8 - 1e-5 <= zoom.min() < 0.82
    assert 1.23 < zoom.max() <= 1.25 + 1e-5
    assert 19 < angle.max() <= 20.01
    assert -20.01 <= angle.min() < -19
    assert matrix[:, 0, 2].abs().max() <= 6.0
    assert matrix[:, 1, 2].abs().max() <= 4.0
    for happens in ((zoom - 1).abs() > 1e-6, angle.abs() > 1e-3, matrix[:, 0, 2] != 0):
        assert 0.46 < happens.float().mean() < 0.54


def test_a_dot_lands_where_the_matrix_says() -> None:
    size = 33
    draws = keyed.uniform(3, "test", 0, torch.arange(50), 8)
    forward = matrices(Augmentation(rotate_degrees=25, shift=0.1), draws, torch.Size((size, size)))
    images = torch.zeros(50, 1, size, size)
    images[:, :, 10:13, 18:21] = 100.0
    images[:, :, 11, 19] = 255.0
    landed = warp(images, forward).flatten(1).argmax(dim=1)
    centre = (size - 1) / 2
    point = torch.tensor([19 - centre, 11 - centre, 1.0])
    x, y = (forward @ point).unbind(1)
    assert (landed % size - (x + centre)).abs().max() <= 1.0
    assert (landed // size - (y + centre)).abs().max() <= 1.0


def test_flip_alone_is_exact_and_in_half_of_the_samples() -> None:
    images = torch.randint(0, 256, (400, 3, 6, 7), dtype=torch.uint8)
    only_flip = Augment(Augmentation(rotate_degrees=0, zoom=(1, 1), shift=0))
    result = only_flip(batch_of(images, list(range(400))), seed=1).input
    assert result.dtype == torch.uint8
    same = (result == images).flatten(1).all(dim=1)
    mirrored = (result == images.flip(3)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 160 < mirrored.sum() < 240


def test_whole_pixel_shifts_only_move_pixels() -> None:
    images = torch.arange(2 * 4 * 5, dtype=torch.uint8).view(2, 1, 4, 5)
    result = move(images, torch.tensor([False, True]), torch.tensor([2, -1]), torch.tensor([0, 1]))
    first = images[0, 0]
    assert torch.equal(result[0, 0], first[:, [1, 0, 0, 1, 2]])
    second = images[1, 0].flip(1)
    assert torch.equal(result[1, 0], second[[0, 0, 1, 2]][:, [1, 2, 3, 4, 4]])


def test_whole_pixel_shifts_agree_with_resampling() -> None:
    images = smooth(6, 16, 16)
    shift_x, shift_y = torch.tensor([0, 1, -2, 3, 0, 2]), torch.tensor([0, -1, 2, 0, 3, 2])
    forward = torch.eye(2, 3).repeat(6, 1, 1)
    forward[:, 0, 2], forward[:, 1, 2] = shift_x, shift_y
    flip = torch.zeros(6, dtype=torch.bool)
    moved = move(images, flip, shift_x, shift_y)
    # Rounding of the coordinates times the difference of neighbouring pixels.
    assert torch.allclose(warp(images, forward), moved, atol=0.01)


@pytest.mark.parametrize(
    "augmentation", [Augmentation(), Augmentation(rotate_degrees=0, zoom=(1, 1), shift=0.2)]
)
def test_a_sample_is_changed_alike_in_whatever_batch(augmentation: Augmentation) -> None:
    images = smooth(12, 16, 16).round().to(torch.uint8)
    augment = Augment(augmentation)
    together = augment(batch_of(images, list(range(12)), epoch=2), seed=5).input
    order = [7, 3, 11, 0]
    apart = augment(batch_of(images[order], order, epoch=2), seed=5).input
    alone = augment(batch_of(images[7:8], [7], epoch=2), seed=5).input
    assert torch.equal(together[order], apart)
    assert torch.equal(together[7:8], alone)
    for other in (
        augment(batch_of(images, list(range(12)), epoch=3), seed=5),
        augment(batch_of(images, list(range(12)), epoch=2), seed=6),
    ):
        assert not torch.equal(other.input, together)


def test_the_batch_that_came_in_stays() -> None:
    images = smooth(4, 8, 8)
    kept = images.clone()
    batch = Batch({"image": images}, {"target": torch.arange(4)}, indices=torch.arange(4))
    result = Augment(Augmentation())(batch, seed=0)
    assert torch.equal(images, kept)
    assert result.target is batch.target
    assert result.input.min() >= 0
    assert result.input.max() <= 255.0 + 1e-3


def test_json_round_trip_and_errors() -> None:
    augmentation = Augmentation(flip=False, zoom=(0.9, 1.2))
    assert Augmentation.from_json(augmentation.as_json()) == augmentation
    assert Augmentation.from_json({"shift": 0.2}).shift == 0.2
    with pytest.raises(InputError, match="has no 'rotation'; it has flip, rotate_degrees"):
        Augmentation.from_json({"rotation": 3})
    with pytest.raises(InputError, match="out of range"):
        Augmentation(zoom=(1.2, 1.0))
    with pytest.raises(InputError, match="no sample numbers"):
        Augment(augmentation)(Batch({"image": smooth(1, 8, 8)}), seed=0)
