"""Moving pixels: one 3×3 matrix a sample, and one resampling of the whole batch.

A matrix says where a point of the image goes: ``(x, y, 1)`` in pixels from the image's centre, x to
the right and y down, to the same of the changed image. Flip, tilts, rotation, zoom, shift and the
change of size are multiplied to one matrix, so pixels are interpolated once.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau_vision.augmentation import Augmentation

DRAWS = 11
"""Uniform numbers that `matrices` reads for a sample: flip; (whether, how much) for rotation and
zoom; (whether, x, y) for shift and warp."""

# Where a strong tilt meets a view from far away, points behind the horizon would come back folded
# over; held here they stay outside and are mirrored. Never reached with warp ≤ 0.2 and zoom ≥ 0.7.
_HORIZON = 0.05


def flip_and_shift(
    augmentation: Augmentation, draws: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """(flip bool, shift in x, shift in y) of each sample, ``(batch,)``, the shifts in pixels."""
    height, width = size
    flip = (draws[:, 0] < 0.5) & augmentation.flip
    reach = (draws[:, 5] < augmentation.probability) * augmentation.shift
    return flip, (2 * draws[:, 6] - 1) * reach * width, (2 * draws[:, 7] - 1) * reach * height


def matrices(
    augmentation: Augmentation, draws: Tensor, size: tuple[int, int], scale: float = 1.0
) -> Tensor:
    """Where each image's points go: float32 ``(batch, 3, 3)``.

    Args:
        augmentation: How far.
        draws: Uniform numbers, ``(batch, DRAWS)`` or more columns.
        size: Height and width of the changed image.
        scale: Pixels of the changed image for one of the image, before anything is drawn.
    """
    flip, shift_x, shift_y = flip_and_shift(augmentation, draws, size)
    probability, (low, high) = augmentation.probability, augmentation.zoom
    turned = draws[:, 1] < probability
    angle = (2 * draws[:, 2] - 1) * turned * math.radians(augmentation.rotate_degrees)
    zoomed = draws[:, 3] < probability
    zoom = torch.where(zoomed, low + (high - low) * draws[:, 4], torch.ones_like(angle))
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    turn = _of_rows((cos, -sin, shift_x), (sin, cos, shift_y), (zero, zero, one))
    if augmentation.warp > 0.0:
        reach = (draws[:, 8] < probability) * augmentation.warp
        turn = turn @ _tilts((2 * draws[:, 9:11] - 1) * reach.unsqueeze(1), size)
    columns = torch.stack([scale * (1.0 - 2.0 * flip), one * scale, one], dim=1)
    return turn * columns.unsqueeze(1)


def _tilts(tilt: Tensor, size: tuple[int, int]) -> Tensor:
    """The tilts ``(batch, 2)`` in x and y as matrices; see `Augmentation` for their meaning.

    In y, coordinates from -1 to 1: ``(x, y) → ((1 - t²) x, y + t) / (t y + 1)``, which leaves the
    upper and the lower edge where they are and makes them ``1 + t`` and ``1 - t`` long.
    """
    height, width = size
    s, t = tilt.unbind(1)
    zero, one = torch.zeros_like(s), torch.ones_like(s)
    in_y = _of_rows((1 - t * t, zero, zero), (zero, one, t), (zero, t, one))
    in_x = _of_rows((one, zero, s), (zero, 1 - s * s, zero), (s, zero, one))
    sides = torch.tensor([width / 2.0, height / 2.0, 1.0])
    return sides.unsqueeze(1) * (in_x @ in_y) / sides


def _of_rows(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def inverse(matrix: Tensor) -> Tensor:
    """The inverse of matrices ``(batch, 3, 3)``, by cross products.

    ``torch.linalg.inv`` gives the same and takes four times as long for 256 matrices.
    """
    a, b, c = matrix.unbind(1)
    columns = torch.stack(
        [torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=2
    )
    return columns / (a * columns[:, :, 0]).sum(1).view(-1, 1, 1)


def kept_inside(forward: Tensor, shape: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The matrices with every view moved, and if need be enlarged, until it lies in its image.

    A view is what of the image is seen in the changed one; where it reaches over the border, the
    changed image would have mirrored corners.

    Args:
        forward: ``(batch, 3, 3)``.
        shape: Height and width of the image.
        size: Height and width of the changed image.
    """
    half = torch.tensor([shape[1] / 2.0, shape[0] / 2.0])
    x, y = size[1] / 2.0, size[0] / 2.0
    corners = torch.tensor([[-x, x, x, -x], [-y, -y, y, y], [1.0, 1.0, 1.0, 1.0]])
    back = inverse(forward)
    seen = back @ corners
    seen = seen[:, :2] / seen[:, 2:].clamp(min=_HORIZON)
    low, high = seen.amin(2), seen.amax(2)
    shrink = (2 * half / (high - low)).amin(1, keepdim=True).clamp(max=1.0)
    reach = half - shrink * (high - low) / 2
    middle = shrink * (low + high) / 2
    move = torch.minimum(torch.maximum(middle, -reach), reach) - middle
    # The view is shrunk and moved in the image, which is undone before the matrix applies.
    factor = torch.cat([1 / shrink, 1 / shrink, torch.ones_like(shrink)], dim=1)
    undone = torch.diag_embed(factor)
    undone[:, :2, 2] = -move / shrink
    return forward @ undone


def sources(
    forward: Tensor, shape: tuple[int, int], size: tuple[int, int], device: torch.device
) -> Tensor:
    """Where each pixel of the changed images comes from, ``(batch, height, width, 2)``.

    Coordinates x and y from -1 to 1 over the image, as ``grid_sample`` takes them; what is outside
    will be mirrored.

    Args:
        forward: ``(batch, 3, 3)``, on the CPU.
        shape: Height and width of the images.
        size: Height and width of the changed images.
        device: Where the result lies.
    """
    height, width = size
    # The inverse, between coordinates of -1..1 on both sides.
    into = torch.tensor([width / 2.0, height / 2.0, 1.0])
    out = torch.tensor([2.0 / shape[1], 2.0 / shape[0], 1.0])
    back = out.unsqueeze(1) * inverse(forward) * into
    projective = bool((back[:, 2, :2] != 0.0).any())
    back = back.to(device, non_blocking=True)
    xs = (torch.arange(width, device=device) + 0.5) * (2.0 / width) - 1.0
    ys = (torch.arange(height, device=device) + 0.5) * (2.0 / height) - 1.0

    # A row and a column of each image, added by broadcasting. Taken for complex numbers, x and y of
    # a pixel are added in one vectorised pass: 0.07 ms for 256×28×28 on one core, where two sums
    # that are stacked take 0.8 and F.affine_grid, which multiplies batched matrices, 1.3.
    def parts(row: Tensor) -> tuple[Tensor, Tensor]:
        a, b, c = row.unsqueeze(2).unbind(1)  # each (batch, 1)
        return (a * xs).unsqueeze(1), (b * ys + c).unsqueeze(2)

    (x_row, x_column), (y_row, y_column) = parts(back[:, 0]), parts(back[:, 1])
    grid = torch.view_as_real(torch.complex(x_row, y_row) + torch.complex(x_column, y_column))
    if projective:
        row, column = parts(back[:, 2])
        grid = grid / (row + column).clamp_(min=_HORIZON).unsqueeze(3)
    return grid


def warp(image: Tensor, forward: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """The images resampled along ``forward``: float32 ``(batch, channels, height, width)``.

    Bilinear; what comes from outside an image is its mirror image.

    Args:
        image: ``(batch, channels, height, width)``, any dtype.
        forward: ``(batch, 3, 3)`` as `matrices` gives them, on the CPU.
        size: Height and width of the result; by default those of the image.
    """
    shape = (image.shape[2], image.shape[3])
    grid = sources(forward, shape, size or shape, image.device)
    return F.grid_sample(
        image.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def move(image: Tensor, flip: Tensor, shift_x: Tensor, shift_y: Tensor) -> Tensor:
    """The images flipped and shifted by whole pixels, mirrored at the border; the dtype stays.

    Args:
        image: ``(batch, channels, height, width)``.
        flip: bool ``(batch,)``.
        shift_x: int64 ``(batch,)``, pixels to the right.
        shift_y: int64 ``(batch,)``, pixels down.
    """
    batch, channels, height, width = image.shape
    if not shift_x.any() and not shift_y.any():
        mirrored = flip.to(image.device).view(-1, 1, 1, 1)
        return torch.where(mirrored, image.flip(3), image)
    xs = _reflected(torch.arange(width) - shift_x.unsqueeze(1), width)
    xs = torch.where(flip.unsqueeze(1), width - 1 - xs, xs)
    ys = _reflected(torch.arange(height) - shift_y.unsqueeze(1), height)
    # One gather over flat pixels: 0.24 ms for 256 images of 28×28 on one core, where padding and
    # cutting out image by image takes 1.7 ms, and two gathers (columns, rows) 0.6 ms.
    places = (ys.unsqueeze(2) * width + xs.unsqueeze(1)).view(batch, 1, -1).to(image.device)
    flat = image.reshape(batch, channels, -1)
    return flat.gather(2, places.expand(batch, channels, -1)).view_as(image)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Places outside 0..size-1 mirrored back, the border pixel doubled as grid_sample does."""
    places = places % (2 * size)
    return torch.minimum(places, 2 * size - 1 - places)
