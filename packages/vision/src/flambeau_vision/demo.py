"""``glyphs``: a synthetic data set of letter images, generated in seconds, for demos and tests.

Twelve letters in a sans-serif font of four weights, outlined, and in hand-drawn strokes that are
thin, thick, dotted or have serifs; rotated, sheared, scaled and shifted, over clutter, on
backgrounds of any brightness.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau import random as keyed
from flambeau.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from flambeau_vision.data import ImageData

GLYPHS = "ACEFHKMRSTXZ"

_CANVAS = 64  # letters are drawn at this size and then shrunk, so that they have smooth edges
_VARIANTS = 40  # drawings per letter; every image transforms one of them
_CLUTTER = 240
_CHUNK = 1_000

# Strokes as points in the unit square, x to the right and y down.
_STROKES: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "A": (((0.0, 1.0), (0.5, 0.0), (1.0, 1.0)), ((0.2, 0.62), (0.8, 0.62))),
    "C": (
        ((0.95, 0.15), (0.6, 0.0), (0.2, 0.12), (0.0, 0.5), (0.2, 0.88), (0.6, 1.0), (0.95, 0.85)),
    ),
    "E": (((0.9, 0.0), (0.0, 0.0), (0.0, 1.0), (0.9, 1.0)), ((0.0, 0.5), (0.75, 0.5))),
    "F": (((0.9, 0.0), (0.0, 0.0), (0.0, 1.0)), ((0.0, 0.5), (0.75, 0.5))),
    "H": (((0.0, 0.0), (0.0, 1.0)), ((1.0, 0.0), (1.0, 1.0)), ((0.0, 0.5), (1.0, 0.5))),
    "K": (((0.0, 0.0), (0.0, 1.0)), ((0.95, 0.0), (0.0, 0.58)), ((0.35, 0.38), (1.0, 1.0))),
    "M": (((0.0, 1.0), (0.05, 0.0), (0.5, 0.6), (0.95, 0.0), (1.0, 1.0)),),
    "R": (
        ((0.0, 1.0), (0.0, 0.0), (0.6, 0.0), (0.85, 0.13), (0.85, 0.38), (0.6, 0.52), (0.0, 0.52)),
        ((0.5, 0.52), (0.95, 1.0)),
    ),
    "S": (
        (
            (0.92, 0.14),
            (0.55, 0.0),
            (0.12, 0.12),
            (0.12, 0.36),
            (0.85, 0.62),
            (0.88, 0.88),
            (0.45, 1.0),
            (0.05, 0.86),
        ),
    ),
    "T": (((0.0, 0.0), (1.0, 0.0)), ((0.5, 0.0), (0.5, 1.0))),
    "X": (((0.0, 0.0), (1.0, 1.0)), ((1.0, 0.0), (0.0, 1.0))),
    "Z": (((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)),),
}


def glyphs(n: int, seed: int = 0, *, size: int = 32) -> tuple[Tensor, Tensor]:
    """Return images of twelve letters and their labels.

    The task is hard for a linear model, but a small network learns it in half a minute;
    ``tests/vision/test_demo.py`` has the accuracies.

    Args:
        n: Number of images; a larger n does not change the first images.
        seed: The same seed gives the same images.
        size: Height and width in pixels.

    Returns:
        (images, labels): uint8 ``(n, 1, size, size)`` and int64 ``(n,)``, indices into `GLYPHS`.

    Raises:
        InputError: n is below 1 or size is below 16.

    Example:
        >>> images, labels = glyphs(4, seed=0)
        >>> images.shape, images.dtype
        (torch.Size([4, 1, 32, 32]), torch.uint8)
    """
    if n < 1 or size < 16:
        raise InputError(f"n has to be at least 1 and size at least 16, got {n} and {size}.")
    letters, clutter = _draw_all()
    images, labels = [], []
    for first in range(0, n, _CHUNK):
        # Always a full chunk, so that a larger n keeps the first images.
        random = np.random.default_rng(keyed.key(seed, "glyphs", first))
        chunk_labels, chunk_images = _compose(random, letters, clutter, size)
        images.append(chunk_images[: n - first])
        labels.append(chunk_labels[: n - first])
    return torch.cat(images), torch.cat(labels)


def glyph_data(n: int = 8_000, seed: int = 0) -> ImageData:
    """Return ``glyphs`` as ``ImageData``; validation and test each get a fifth of the images."""
    from flambeau_vision.data import ImageData

    images, labels = glyphs(n, seed)
    return ImageData.from_arrays(
        images, labels, valid=0.2, test=0.2, seed=seed, class_names=list(GLYPHS)
    )


# ---------------------------------------------------------------- images


def _compose(
    random: np.random.Generator, letters: Tensor, clutter: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Return the labels and images of one chunk: letters over clutter, with shading and noise."""
    n = _CHUNK
    labels = torch.from_numpy(random.integers(0, len(GLYPHS), n))
    variant = torch.from_numpy(random.integers(0, _VARIANTS, n))
    letter = _transform(
        random, letters[labels, variant], size, max_degrees=20, scale=(0.55, 0.85), max_shift=0.15
    )
    marks = torch.zeros(n, size, size)
    for _ in range(2):
        drawn = clutter[torch.from_numpy(random.integers(0, len(clutter), n))]
        moved = _transform(random, drawn, size, max_degrees=180, scale=(0.5, 1.2), max_shift=0.5)
        marks = torch.maximum(marks, moved * _per_image(random.uniform(0.1, 0.6, n)))

    background = _per_image(random.uniform(0.05, 0.45, n))
    ink = background + _per_image(random.uniform(0.4, 0.55, n))
    strength = _per_image(random.uniform(0.0, 0.25, n))
    angle = random.uniform(0, 2 * math.pi, n)
    across = torch.linspace(-0.5, 0.5, size)
    shading = _per_image(np.cos(angle)) * across + _per_image(np.sin(angle)) * across.unsqueeze(1)
    image = background + (ink - background) * 0.9 * marks
    image = image + (ink - image) * letter + strength * shading
    inverted = _per_image((random.random(n) < 0.5).astype(np.float64))
    image = inverted + (1 - 2 * inverted) * image
    noise = random.standard_normal((n, size, size), dtype=np.float32)
    image = image + _per_image(random.uniform(0.01, 0.06, n)) * torch.from_numpy(noise)
    return labels, (image * 255).round().clamp(0, 255).to(torch.uint8).unsqueeze(1)


def _transform(
    random: np.random.Generator,
    drawn: Tensor,
    size: int,
    *,
    max_degrees: float,
    scale: tuple[float, float],
    max_shift: float,
) -> Tensor:
    """Rotate, shear, scale and shift drawings: float32 ``(n, size, size)`` in 0..1."""
    n = len(drawn)
    angle = np.deg2rad(random.uniform(-max_degrees, max_degrees, n))
    factor, aspect = random.uniform(*scale, n), random.uniform(0.75, 1.3, n)
    shear = random.uniform(-0.25, 0.25, n)
    cos, sin = np.cos(angle), np.sin(angle)
    rotated = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)
    sheared = np.stack(
        [np.stack([1 + 0 * shear, shear], 1), np.stack([0 * shear, 1 + 0 * shear], 1)], 1
    )
    scaled = np.stack([factor * np.sqrt(aspect), factor / np.sqrt(aspect)], 1)
    forward = rotated @ sheared * scaled[:, None, :]
    backward = np.linalg.inv(forward)
    shift = random.uniform(-max_shift, max_shift, (n, 2, 1))
    theta = torch.from_numpy(np.concatenate([backward, -backward @ shift], axis=2)).float()
    # At twice the resolution and then averaged: smooth edges without blurring thin strokes.
    grid = F.affine_grid(theta, [n, 1, 2 * size, 2 * size], align_corners=False)
    fine = F.grid_sample(drawn.unsqueeze(1).float(), grid, align_corners=False)
    return F.avg_pool2d(fine, 2).squeeze(1) / 255.0


def _per_image(values: np.ndarray) -> Tensor:
    """Return one value per image, to be broadcast over its pixels."""
    return torch.from_numpy(values).float().view(-1, 1, 1)


# ---------------------------------------------------------------- drawings


def _draw_all() -> tuple[Tensor, Tensor]:
    """Return uint8 letters ``(12, variants, 64, 64)`` and clutter ``(n, 64, 64)``.

    They are the same on every call.
    """
    random = np.random.default_rng(20_17)
    letters = [[_draw_letter(random, name, kind) for kind in range(_VARIANTS)] for name in GLYPHS]
    clutter = [_draw_clutter(random) for _ in range(_CLUTTER)]
    return (
        torch.from_numpy(np.array([[np.asarray(image) for image in row] for row in letters])),
        torch.from_numpy(np.array([np.asarray(image) for image in clutter])),
    )


def _draw_letter(random: np.random.Generator, name: str, kind: int) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("L", (_CANVAS, _CANVAS))
    draw = ImageDraw.Draw(image)
    centre = (_CANVAS / 2, _CANVAS / 2)
    if kind % 4 == 0:  # printed: Pillow's own font, from regular to very bold
        font, weight = ImageFont.load_default(52), kind // 4 % 4
        draw.text(centre, name, 255, font, anchor="mm", stroke_width=weight, stroke_fill=255)
    elif kind % 8 == 1:  # printed, outlined
        font = ImageFont.load_default(50)
        draw.text(centre, name, 0, font, anchor="mm", stroke_width=2, stroke_fill=255)
    else:
        _draw_strokes(random, draw, name, kind)
    return image


def _draw_strokes(random: np.random.Generator, draw: ImageDraw, name: str, kind: int) -> None:
    """Draw a letter by hand-written strokes of random width."""
    width = int(random.integers(2, 11))
    low, high = 11.0, _CANVAS - 11.0
    for stroke in _STROKES[name]:
        points = np.array(stroke) + random.normal(0.0, 0.045, (len(stroke), 2))
        path = [tuple(point) for point in (low + points * (high - low)).tolist()]
        if kind % 8 == 3:  # dotted
            for x, y in _points_along(path, step=max(5.0, 1.3 * width)):
                _dot(draw, x, y, max(3.0, 0.9 * width))
            continue
        draw.line(path, 255, width, joint="curve")
        for x, y in path:
            _dot(draw, x, y, width)  # round ends and corners
        if kind % 8 == 5:  # serifs: a short bar across the ends
            for x, y in (path[0], path[-1]):
                draw.line([(x - 6, y), (x + 6, y)], 255, max(2, width // 2))


def _points_along(path: list[tuple[float, ...]], step: float) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for (x0, y0), (x1, y1) in itertools.pairwise(path):
        count = max(1, round(math.hypot(x1 - x0, y1 - y0) / step))
        steps = np.linspace(0.0, 1.0, count + 1)
        points += [(x0 + (x1 - x0) * share, y0 + (y1 - y0) * share) for share in steps]
    return points


def _dot(draw: ImageDraw, x: float, y: float, width: float) -> None:
    radius = width / 2
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def _draw_clutter(random: np.random.Generator) -> Image:
    """Return images of lines, arcs and dots that look like parts of letters."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (_CANVAS, _CANVAS))
    draw = ImageDraw.Draw(image)
    for _ in range(int(random.integers(1, 4))):
        width = int(random.integers(2, 7))
        x0, y0, x1, y1 = random.uniform(0, _CANVAS, 4)
        shape = random.integers(0, 3)
        if shape == 0:
            draw.line([(x0, y0), (x1, y1)], 255, width)
        elif shape == 1:
            box = (min(x0, x1), min(y0, y1), max(x0, x1) + 1, max(y0, y1) + 1)
            start = random.uniform(0, 360)
            draw.arc(box, start, start + random.uniform(60, 200), 255, width)
        else:
            for _ in range(int(random.integers(1, 4))):
                x, y = random.uniform(0, _CANVAS, 2)
                _dot(draw, x, y, float(random.uniform(3, 9)))
    return image
