"""Contact sheets: a grid of thumbnails with captions, as one image."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flambeau import random as keyed
from flambeau.data.preview import Preview
from flambeau_vision.decode import Pixels, decode
from flambeau_vision.resize import Geometry, resize_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

# From this side on, images are interpolated when enlarged; smaller ones keep visible pixels.
_SMOOTH_FROM = 65
_GAP, _FONT_SIZE = 8, 13
_TEXT_COLOUR = (40, 40, 40)
_CORRECT_COLOUR, _WRONG_COLOUR = (20, 120, 60), (190, 40, 40)


def contact_sheet(
    items: Sequence[Any],
    captions: Sequence[str],
    *,
    colours: Sequence[tuple[int, int, int]] | None = None,
    side: int = 112,
    path: str | os.PathLike[str] | None = None,
) -> Image:
    """Return a Pillow image with every item in a square of ``side`` pixels above its caption.

    Args:
        items: Whatever `flambeau_vision.decode.decode` accepts.
        captions: One per image; each of its lines is cut to the width of the square.
        colours: Colours of the captions as (red, green, blue); dark grey by default.
        side: Side of a square in pixels.
        path: File to save the sheet to.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_FONT_SIZE)
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    line_height = _FONT_SIZE + 3
    columns = max(1, min(len(items), round((1.6 * len(items)) ** 0.5)))
    rows = -(-len(items) // columns)
    cell_width, cell_height = side + _GAP, side + lines * line_height + _GAP
    sheet = Image.new(
        "RGB", (columns * cell_width + _GAP, max(rows, 1) * cell_height + _GAP), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for index, (item, caption) in enumerate(zip(items, captions, strict=True)):
        left = _GAP + index % columns * cell_width
        top = _GAP + index // columns * cell_height
        sheet.paste(Image.fromarray(_thumbnail(item, side)), (left, top))
        colour = colours[index] if colours is not None else _TEXT_COLOUR
        for number, line in enumerate(caption.split("\n")):
            position = (left, top + side + 2 + number * line_height)
            draw.text(position, _fit(line, side, font), colour, font)
    if path is not None:
        sheet.save(path)
    return sheet


def report_image(item: Any, row: int, side: int = 200) -> Preview:
    """Return a small copy of an item for a report, captioned with its name and path, or its row.

    Args:
        item: Whatever `flambeau_vision.decode.decode` accepts.
        row: Row number of the item.
        side: The longer side of the copy in pixels.
    """
    from PIL import Image

    is_path = isinstance(item, str | os.PathLike)
    pixels = decode(item, channels=None, target_side=side)
    pixels = pixels[:, :, 0] if pixels.shape[2] in (1, 2) else pixels[:, :, :3]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    longest = max(image.size)
    smooth = Image.Resampling.LANCZOS if longest >= _SMOOTH_FROM else Image.Resampling.NEAREST
    width, height = (max(1, round(size * side / longest)) for size in image.size)
    image, file = image.resize((width, height), smooth), io.BytesIO()
    # JPEG needs a fifth of PNG's size for a photograph; arrays, often few pixels, stay exact.
    if is_path:
        image.save(file, "JPEG", quality=85)
    else:
        image.save(file, "PNG", optimize=True)
    caption = f"{os.path.basename(item)}\n{os.fspath(item)}" if is_path else f"image {row}"
    return Preview(caption, file.getvalue())


def random_positions(total: int, n: int) -> list[int]:
    """Return ``n`` random positions below ``total``, ascending; every call returns the same."""
    positions = torch.randperm(total, generator=keyed.generator(0, "show", total))
    return positions[:n].sort().values.tolist()


def predictions_sheet(
    items: Sequence[Any],
    targets: Sequence[str],
    predictions: Sequence[Any],
    *,
    path: str | os.PathLike[str] | None = None,
) -> Image:
    """Return a contact sheet of predictions above targets; green if they are equal, else red.

    Args:
        items: Whatever `flambeau_vision.decode.decode` accepts.
        targets: The targets as text, one per item.
        predictions: Text, or objects with ``label`` (or ``labels``) and ``probability``.
        path: File to save the sheet to.
    """
    captions, colours = [], []
    for target, prediction in zip(targets, predictions, strict=True):
        label, probability = _prediction_text(prediction)
        captions.append(f"{label}{probability}\ntarget: {target}")
        colours.append(_CORRECT_COLOUR if label == target else _WRONG_COLOUR)
    return contact_sheet(items, captions, colours=colours, path=path)


def _prediction_text(prediction: Any) -> tuple[str, str]:
    """Return a prediction as text, and its probability as text if it has one."""
    label = getattr(prediction, "label", getattr(prediction, "labels", prediction))
    if isinstance(label, list | tuple):
        label = ", ".join(map(str, label)) or "(none)"
    elif isinstance(label, float):
        label = f"{label:g}"
    probability = getattr(prediction, "probability", None)
    return str(label), "" if probability is None else f" {probability:.0%}"


def _fit(line: str, width: int, font: Any) -> str:
    """Return the line, shortened to ``width`` pixels if necessary."""
    if font.getlength(line) <= width:
        return line
    shortened = (f"{line[:end]}…" for end in range(len(line) - 1, 0, -1))
    return next((short for short in shortened if font.getlength(short) <= width), "…")


def _thumbnail(item: Any, side: int) -> Pixels:
    """Return uint8 ``(side, side, 3)`` with the aspect ratio kept, on light grey."""
    pixels = decode(item, channels=None, target_side=side)
    if pixels.shape[2] not in (1, 3):
        pixels = pixels[:, :, :3] if pixels.shape[2] > 3 else pixels[:, :, :1]
    longest = max(pixels.shape[:2])
    filter_ = "bilinear" if longest >= _SMOOTH_FROM else "nearest"
    channels = pixels.shape[2]
    square = resize_pixels(pixels, Geometry(side, channels, "pad", interpolation=filter_))
    mask = resize_pixels(
        np.full((*pixels.shape[:2], 1), 255, np.uint8),
        Geometry(side, 1, "pad", interpolation="nearest"),
    )
    return np.where(mask > 0, np.broadcast_to(square, (side, side, 3)), np.uint8(235))
