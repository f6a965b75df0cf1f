"""Presizing: read train images larger than the model's input.

Rotating an image exposes corners outside it, and zooming in enlarges it from fewer pixels than the
file has. So train images are read at a larger size, and the one resampling on the device that
rotates and zooms them also resizes them to the final size. Validation and prediction read images at
the final size and are not affected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flambeau.errors import PlanError
from flambeau_vision.augmentation_settings import Augmentation
from flambeau_vision.resize import Geometry

FACTOR = 1.25
"""Presized side relative to the final side. If it is large, a view without zoom skips pixels; if it
is small, a view with the largest zoom is blurred; memory grows with its square."""

MIN_FACTOR = 1.15
"""Images whose resolution allows only a smaller factor are read at the final size."""


def presize_side(size: int, crop: float, short_side: float) -> int | None:
    """Return the side in pixels at which to read train images; None if presizing gains too little.

    Args:
        size: The final side.
        crop: Share of the short side that is visible in validation; see `Geometry`.
        short_side: Median short side of the images.
    """
    side = min(size / crop * FACTOR, short_side)
    return int(side) if side >= size / crop * MIN_FACTOR else None


def part_geometry(part: str, geometry: Geometry, values: Mapping[str, Any]) -> Geometry:
    """Return how to read the images of a part: ``geometry``, or presized for train if planned.

    A presized image covers the whole short side, a validation image its centre (``crop``).

    Args:
        part: "train", "valid" or "test".
        geometry: The model's input.
        values: The plan's values.

    Raises:
        PlanError: ``presize`` is smaller than the final size, or the augmentation does not
            resample.
    """
    side = values.get("presize")
    if part != "train" or side is None:
        return geometry
    given = values.get("augmentation")
    if given is None or not Augmentation.from_json(given).resamples:
        raise PlanError(
            f"presize={side!r} reads train images at a larger size, but the augmentation does not "
            "resample them to the final size. Remove presize, or enable rotation, zoom or warp."
        )
    if geometry.height != geometry.width:
        raise PlanError(
            f"presize={side!r} reads square images, but image_size is {geometry.size}. Use "
            "presize=None, or one number for the size."
        )
    if not isinstance(side, int) or side < geometry.height:
        raise PlanError(
            f"presize={side!r} has to be a whole number of pixels, at least "
            f"image_size={geometry.size}. Use about {round(geometry.height * FACTOR)}, or None."
        )
    return replace(geometry, size=side, crop=1.0)
