import math

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from flambeau import random as keyed
from flambeau_vision.augmentation_settings import Augmentation
from flambeau_vision.geometric_warp import (
    N_DRAWS,
    forward_matrices,
    inverse,
    keep_inside,
    move_pixels,
    sampling_grid,
    warp,
)

EVERYTHING = Augmentation(rotate_degrees=25, zoom=(0.9, 1.3), shift=0.1, warp=0.2, probability=1)
CPU = torch.device("cpu")


def smooth(n: int, height: int, width: int, channels: int = 1) -> torch.Tensor:
    """float32 images in 0..255 without hard edges."""
    coarse = torch.rand(n, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    return 255 * torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(
        0, 1
    )


def drawn(n: int, seed: int = 0) -> torch.Tensor:
    return keyed.uniform(seed, "test", 0, torch.arange(n), N_DRAWS)


def affine(angle: float, zoom: float, dx: float, dy: float, *, flip: bool = False) -> torch.Tensor:
    cos, sin = (f(math.radians(angle)) * zoom for f in (math.cos, math.sin))
    sign = -1.0 if flip else 1.0
    return torch.tensor([[cos * sign, -sin, dx], [sin * sign, cos, dy], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize("shape", [(40, 40), (30, 50)])
@pytest.mark.parametrize("flip", [False, True])
def test_the_warp_matches_torchvision(shape: tuple[int, int], flip: bool) -> None:
    height, width = shape
    images = smooth(4, height, width, 3) / 255
    for angle, zoom, dx, dy in [(8.0, 1.0, 0, 0), (-10.0, 1.1, 2, -1), (0.0, 0.9, 0, 3)]:
        matrix = affine(angle, zoom, dx, dy, flip=flip)
        given = warp(images, matrix.repeat(4, 1, 1))
        for image, result in zip(images, given, strict=True):
            image = reference.horizontal_flip(image) if flip else image
            expected = reference.affine(
                image, angle, [dx, dy], zoom, [0.0, 0.0], InterpolationMode.BILINEAR
            )
            # The border is reflected here and black in torchvision.
            inside = (..., slice(9, -9), slice(9, -9))
            assert (result - expected)[inside].abs().max() < 0.02


@pytest.mark.parametrize("shape", [(40, 40), (30, 50)])
@pytest.mark.parametrize("tilt", [(0.2, 0.0), (0.0, -0.15), (0.1, 0.2)])
def test_the_perspective_matches_torchvision(
    shape: tuple[int, int], tilt: tuple[float, float]
) -> None:
    height, width = shape
    images = smooth(3, height, width, 3) / 255
    only_warp = Augmentation(False, 0, (1, 1), 0, 1.0, warp=0.2)
    draws = torch.zeros(3, N_DRAWS)
    draws[:, 9:11] = (torch.tensor(tilt) / 0.2 + 1) / 2
    forward = forward_matrices(only_warp, draws, shape)
    corners = torch.tensor([[-1.0, 1, 1, -1], [-1, -1, 1, 1]]) * torch.tensor(
        [[width / 2], [height / 2]]
    )
    landed = forward[0] @ torch.cat([corners, torch.ones(1, 4)])
    landed = landed[:2] / landed[2]
    x, y = tilt
    if x == 0 or y == 0:  # one edge grows by the tilt, the opposite one shrinks by it
        grown = corners * torch.tensor([[1 + y, 1 + y, 1 - y, 1 - y], [1 + x, 1 - x, 1 - x, 1 + x]])
        assert torch.allclose(landed, grown, atol=1e-4)  # float32
    centre = torch.tensor([width / 2, height / 2])
    expected = reference.perspective(
        images, (corners.T + centre).tolist(), (landed.T + centre).tolist()
    )
    # Only pixels whose source is inside the image: outside, torchvision fills with black.
    inside = (sampling_grid(forward, shape, shape, CPU).abs().amax(3) < 0.9).unsqueeze(1)
    assert inside.float().mean() > 0.6
    assert ((warp(images, forward) - expected) * inside).abs().max() < 0.02


def test_matrices_are_within_their_ranges() -> None:
    everything = Augmentation(rotate_degrees=20, zoom=(0.8, 1.25), shift=0.1, probability=0.5)
    matrix = forward_matrices(everything, drawn(4000), (40, 60))
    zoom = matrix[:, :2, 1].norm(dim=1)
    angle = torch.atan2(-matrix[:, 0, 1], matrix[:, 1, 1]).rad2deg()
    flipped = torch.det(matrix) < 0
    assert 0.46 < flipped.float().mean() < 0.54
    assert 0.8 - 1e-5 <= zoom.min() < 0.82
    assert 1.23 < zoom.max() <= 1.25 + 1e-5
    assert 19 < angle.max() <= 20.01
    assert -20.01 <= angle.min() < -19
    assert matrix[:, 0, 2].abs().max() <= 6.0
    assert matrix[:, 1, 2].abs().max() <= 4.0
    for happens in ((zoom - 1).abs() > 1e-6, angle.abs() > 1e-3, matrix[:, 0, 2] != 0):
        assert 0.46 < happens.float().mean() < 0.54


def test_switching_one_off_does_not_change_the_others() -> None:
    draws = drawn(200)
    without_flip = forward_matrices(Augmentation(flip=False), draws, (40, 40))
    with_flip = forward_matrices(Augmentation(), draws, (40, 40))
    assert torch.equal(with_flip[:, :, 1:], without_flip[:, :, 1:])
    tilted = forward_matrices(Augmentation(warp=0.2, probability=1.0), draws, (40, 40))
    plain = forward_matrices(Augmentation(probability=1.0), draws, (40, 40))
    # The difference between both is a tilt alone: no rotation.
    tilt = inverse(plain) @ tilted
    assert (tilt[:, 0, 1].abs() < 0.05).all()
    assert (tilt[:, 2, :2].abs().amax(1) > 0).all()


@pytest.mark.parametrize("augmentation", [EVERYTHING, Augmentation(rotate_degrees=25, shift=0.1)])
@pytest.mark.parametrize("size", [33, 25])
def test_a_dot_moves_as_the_matrix_says(augmentation: Augmentation, size: int) -> None:
    shape = (33, 33)
    forward = forward_matrices(augmentation, drawn(50, seed=3), (size, size), scale=size / 33)
    images = torch.zeros(50, 1, *shape)
    images[:, :, 10:13, 18:21] = 100.0
    images[:, :, 11, 19] = 255.0
    landed = warp(images, forward, (size, size)).flatten(1).argmax(dim=1)
    point = forward @ torch.tensor([19 - 16.0, 11 - 16.0, 1.0])
    x, y = (point[:, :2] / point[:, 2:] + (size - 1) / 2).unbind(1)
    assert (landed % size - x).abs().max() <= 1.0
    assert (landed // size - y).abs().max() <= 1.0


def test_the_inverse_matches_torch() -> None:
    forward = forward_matrices(EVERYTHING, drawn(100), (40, 30))
    # Pixels of offsets up to 4, in float32.
    assert torch.allclose(inverse(forward), torch.linalg.inv(forward), atol=1e-4)


def test_views_kept_inside_have_no_reflected_pixels() -> None:
    shape, size = (50, 50), (40, 40)
    strong = Augmentation(rotate_degrees=30, zoom=(0.8, 1.3), shift=0.2, warp=0.2)
    forward = forward_matrices(strong, drawn(500), size, scale=0.8)
    furthest = sampling_grid(forward, shape, size, CPU).abs().flatten(1).amax(1)
    assert (furthest > 1).float().mean() > 0.5
    kept = keep_inside(forward, shape, size)
    assert sampling_grid(kept, shape, size, CPU).abs().max() <= 1.0
    # A view inside the image is not changed (its edge is half a pixel beyond the outermost centre);
    # the others show the same image, zoomed in.
    inside = furthest < 0.93
    assert inside.sum() > 5
    assert torch.allclose(kept[inside], forward[inside], atol=1e-4)
    undone = inverse(forward) @ kept
    assert (undone[:, 0, 0] >= 1 - 1e-4).all()
    assert undone[:, 0, 1].abs().max() < 1e-4


def test_a_shifted_view_is_only_moved_back() -> None:
    forward = affine(0, 1.5, 30, 0).unsqueeze(0)
    kept = keep_inside(forward, (40, 40), (40, 40))
    assert torch.allclose(kept[0], affine(0, 1.5, 10, 0), atol=1e-5)


def test_warp_returns_the_requested_size() -> None:
    images = smooth(2, 60, 60, 3)
    result = warp(images, torch.diag(torch.tensor([0.5, 0.5, 1.0])).repeat(2, 1, 1), (30, 30))
    expected = torch.nn.functional.interpolate(images, (30, 30), mode="bilinear")
    assert torch.allclose(result, expected, atol=0.02)  # of 255: rounding of the coordinates


def test_whole_pixel_shifts_only_move_pixels() -> None:
    images = torch.arange(2 * 4 * 5, dtype=torch.uint8).view(2, 1, 4, 5)
    flip = torch.tensor([False, True])
    result = move_pixels(images, flip, torch.tensor([2, -1]), torch.tensor([0, 1]))
    first = images[0, 0]
    assert torch.equal(result[0, 0], first[:, [1, 0, 0, 1, 2]])
    second = images[1, 0].flip(1)
    assert torch.equal(result[1, 0], second[[0, 0, 1, 2]][:, [1, 2, 3, 4, 4]])


def test_whole_pixel_shifts_agree_with_resampling() -> None:
    images = smooth(6, 16, 16)
    shift_x, shift_y = torch.tensor([0, 1, -2, 3, 0, 2]), torch.tensor([0, -1, 2, 0, 3, 2])
    forward = torch.eye(3).repeat(6, 1, 1)
    forward[:, 0, 2], forward[:, 1, 2] = shift_x, shift_y
    flip = torch.zeros(6, dtype=torch.bool)
    moved = move_pixels(images, flip, shift_x, shift_y)
    # Rounding of the coordinates times the difference of neighbouring pixels.
    assert torch.allclose(warp(images, forward), moved, atol=0.01)
