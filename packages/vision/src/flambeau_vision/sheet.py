"""Contact sheets: many small pictures with a line of text under each, as one picture."""

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

# From this side on a picture is enlarged smoothly; below, its pixels are shown as they are.
_SMOOTH_FROM = 65
_GAP, _FONT_SIZE = 8, 13
_INK = (40, 40, 40)
_RIGHT, _WRONG = (20, 120, 60), (190, 40, 40)


def contact_sheet(
    items: Sequence[Any],
    captions: Sequence[str],
    *,
    colours: Sequence[tuple[int, int, int]] | None = None,
    side: int = 112,
    path: str | os.PathLike[str] | None = None,
) -> Image:
    """A Pillow image with every item in a square of ``side`` pixels over its caption.

    Args:
        items: What `flambeau_vision.decode.decode` takes.
        captions: One a picture, each line of it cut to the width of the square.
        colours: Of the captions, red, green, blue; dark grey by default.
        side: Of a square, in pixels.
        path: Where the sheet is saved too.
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
    for place, (item, caption) in enumerate(zip(items, captions, strict=True)):
        left = _GAP + place % columns * cell_width
        top = _GAP + place // columns * cell_height
        sheet.paste(Image.fromarray(_thumbnail(item, side)), (left, top))
        for number, line in enumerate(caption.split("\n")):
            colour = colours[place] if colours is not None else _INK
            draw.text(
                (left, top + side + 2 + number * line_height), _cut(line, side, font), colour, font
            )
    if path is not None:
        sheet.save(path)
    return sheet


def picture_of(item: Any, row: int, side: int = 200) -> Preview:
    """A small copy of an item for a report, with its file's name, or its row where it has none.

    Args:
        item: What `flambeau_vision.decode.decode` takes.
        row: Its number.
        side: The longer side of the copy, in pixels.
    """
    from PIL import Image

    is_path = isinstance(item, str | os.PathLike)
    pixels = decode(item, channels=None, smallest=side)
    pixels = pixels[:, :, 0] if pixels.shape[2] in (1, 2) else pixels[:, :, :3]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    longest = max(image.size)
    smooth = Image.Resampling.LANCZOS if longest >= _SMOOTH_FROM else Image.Resampling.NEAREST
    width, height = (max(1, round(size * side / longest)) for size in image.size)
    image, file = image.resize((width, height), smooth), io.BytesIO()
    # A photograph is a fifth of the size as a JPEG; what has few pixels stays as it is.
    if is_path:
        image.save(file, "JPEG", quality=85)
    else:
        image.save(file, "PNG", optimize=True)
    return Preview(os.path.basename(item) if is_path else f"picture {row}", file.getvalue())


def drawn_places(total: int, n: int) -> list[int]:
    """``n`` places out of ``total``, ascending; the same ones every time."""
    places = torch.randperm(total, generator=keyed.generator(0, "show", total))
    return places[:n].sort().values.tolist()


def answers_sheet(
    items: Sequence[Any],
    truths: Sequence[str],
    predictions: Sequence[Any],
    *,
    path: str | os.PathLike[str] | None = None,
) -> Image:
    """A contact sheet with what was predicted over what is true; green where they agree."""
    captions, colours = [], []
    for truth, prediction in zip(truths, predictions, strict=True):
        answer, probability = _answer_text(prediction)
        captions.append(f"{answer}{probability}\ntrue: {truth}")
        colours.append(_RIGHT if answer == truth else _WRONG)
    return contact_sheet(items, captions, colours=colours, path=path)


def _answer_text(prediction: Any) -> tuple[str, str]:
    """A prediction as text, and its probability as text where it has one."""
    label = getattr(prediction, "label", getattr(prediction, "labels", prediction))
    if isinstance(label, list | tuple):
        label = ", ".join(map(str, label)) or "(none)"
    elif isinstance(label, float):
        label = f"{label:g}"
    probability = getattr(prediction, "probability", None)
    return str(label), "" if probability is None else f" {probability:.0%}"


def _cut(line: str, width: int, font: Any) -> str:
    """The line, or as much of it as fits into ``width`` pixels."""
    if font.getlength(line) <= width:
        return line
    ends = (f"{line[:end]}…" for end in range(len(line) - 1, 0, -1))
    return next((short for short in ends if font.getlength(short) <= width), "…")


def _thumbnail(item: Any, side: int) -> Pixels:
    """uint8 ``(side, side, 3)`` on light grey, the proportions kept."""
    pixels = decode(item, channels=None, smallest=side)
    if pixels.shape[2] not in (1, 3):
        pixels = pixels[:, :, :3] if pixels.shape[2] > 3 else pixels[:, :, :1]
    longest = max(pixels.shape[:2])
    filter_ = "bilinear" if longest >= _SMOOTH_FROM else "nearest"
    channels = pixels.shape[2]
    square = resize_pixels(pixels, Geometry(side, channels, "pad", interpolation=filter_))
    covered = resize_pixels(
        np.full((*pixels.shape[:2], 1), 255, np.uint8),
        Geometry(side, 1, "pad", interpolation="nearest"),
    )
    return np.where(covered > 0, np.broadcast_to(square, (side, side, 3)), np.uint8(235))
