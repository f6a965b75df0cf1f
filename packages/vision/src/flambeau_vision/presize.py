"""Presizing: train pictures are read larger than the network takes them.

A picture that turns has corners from outside, and one that is zoomed in has been enlarged from
fewer pixels than it had. So train pictures are read at a larger size, and the one resampling on the
device that turns and zooms them also brings them to the final size. Validation and prediction read
their pictures at the final size; nothing of this reaches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flambeau.errors import PlanError
from flambeau_vision.augmentation import Augmentation
from flambeau_vision.resize import Geometry

FACTOR = 1.25
"""Presized side over the side at the final scale. A view without zoom skips pixels where this is
large, one with the largest zoom is blurred where it is small, and memory grows with its square."""

LEAST_FACTOR = 1.15
"""Where the pictures have less to give than this, they are read at the final size."""


def presized_side(size: int, crop: float, short_side: float) -> int | None:
    """The side in pixels at which train pictures are read; None where it would not pay.

    Args:
        size: The final side.
        crop: Share of the short side that validation sees; see `Geometry`.
        short_side: What the pictures have.
    """
    side = min(size / crop * FACTOR, short_side)
    return int(side) if side >= size / crop * LEAST_FACTOR else None


def read_geometry(part: str, geometry: Geometry, values: Mapping[str, Any]) -> Geometry:
    """How the pictures of a part are read: ``geometry``, or presized for train where planned.

    A presized picture covers the whole short side, that of validation its middle (``crop``).

    Args:
        part: "train", "valid" or "test".
        geometry: What the network takes.
        values: The plan's.

    Raises:
        PlanError: ``presize`` is smaller than the final size, or nothing would resample.
    """
    side = values.get("presize")
    if part != "train" or side is None:
        return geometry
    given = values.get("augmentation")
    if given is None or not Augmentation.from_json(given).resamples:
        raise PlanError(
            f"presize={side!r} asks for larger train pictures, but the augmentation does not "
            "resample them to the final size. Leave presize out, or let the augmentation turn, "
            "zoom or warp."
        )
    if not isinstance(side, int) or side < geometry.size:
        raise PlanError(
            f"presize={side!r} is no whole number of pixels from image_size={geometry.size} on. "
            f"Take about {round(geometry.size * FACTOR)}, or None."
        )
    return replace(geometry, size=side, crop=1.0)
