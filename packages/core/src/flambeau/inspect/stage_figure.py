"""Figures of stages: images, feature maps and filters; requires matplotlib."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from flambeau.plotting import new_figure, shorten_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flambeau.inspect.stages import Stage

_MOST_PANELS = 16
_COLOURS = "viridis"
_OF_SAMPLES = ("batch", "transform", "logits", "carry")

Panel = tuple[str, Any]
"""Title, and an array ``(height, width)`` or ``(height, width, 3)`` for ``imshow``."""


def has_figure(stage: Stage) -> bool:
    """Return whether the stage is shown as a figure: images, or a tensor of four axes."""
    value = stage.value
    is_map = isinstance(value, Tensor) and value.ndim == 4 and value.numel() and not _is_odd(value)
    return bool(stage.images) or bool(is_map)


def figure_of(stage: Stage) -> Figure:
    """Return a figure with at most 16 panels."""
    panels = _file_panels(stage) if stage.images else _tensor_panels(stage)
    columns = min(len(panels), 4 if len(panels) <= 8 else 8)
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(1.5 * columns, 1.6 * rows + 0.3)
    figure.suptitle(f"{stage.kind}: {stage.name}", fontsize=9)
    grid = cast("Any", figure.subplots(rows, columns, squeeze=False))
    for axes, panel in zip(grid.flat, panels, strict=False):
        title, pixels = panel
        axes.imshow(pixels, cmap=_COLOURS)
        axes.set_title(shorten_label(title), fontsize=7)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure


def _file_panels(stage: Stage) -> list[Panel]:
    pairs = list(zip(stage.value, stage.images, strict=True))[:_MOST_PANELS]
    return [(caption.splitlines()[0], decoded_image(content)) for caption, content in pairs]


def decoded_image(content: bytes) -> Any:
    """Return the pixels of an image file, ``Preview.image``, for ``imshow``."""
    from matplotlib.image import imread

    # Without the format matplotlib would take the file for PNG.
    return imread(io.BytesIO(content), format=_format(content))


def _format(content: bytes) -> str:
    """Return the format of an image file from its first bytes, as in ``Preview.image``."""
    if content.startswith(b"\x89PNG"):
        return "png"
    if content.startswith(b"\xff\xd8"):
        return "jpeg"
    return "gif" if content.startswith(b"GIF8") else "webp"


def _tensor_panels(stage: Stage) -> list[Panel]:
    """Return the channels of the first sample for an output, else samples or filters.

    Of a sample or filter that is not an image, the first channel is shown.
    """
    value: Tensor = stage.value
    if stage.kind == "output":
        name, maps = "channel", value[0]
    else:
        name = "sample" if stage.kind in _OF_SAMPLES else "filter"
        is_image = value.shape[1] in (1, 3)
        maps = value.movedim(1, -1).squeeze(-1) if is_image else value[:, 0]
    return [(f"{name} {i}", _scaled(each)) for i, each in enumerate(maps[:_MOST_PANELS])]


def _scaled(image: Tensor) -> Any:
    """Return an image with its values scaled to 0..1, for display."""
    image = torch.nan_to_num(image.float())
    low, high = torch.aminmax(image)
    return ((image - low) / (high - low).clamp(min=1e-12)).numpy()


def _is_odd(value: Tensor) -> bool:
    return value.is_complex() or value.dtype == torch.bool
