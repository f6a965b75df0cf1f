"""Find the value of white in images of floats (1 or 255), and scale floats to 0..255."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flambeau.data.split import Rows
from flambeau.errors import InputError

White = Literal[1, 255]
"""The value of white in images of floats."""

LEAST_BRIGHT = 16.0
"""Float pixels in 0..255 with a lower maximum would be almost black."""

# Rounding errors of resizing in float32; a quarter of a level of 255.
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True)
class FloatRange:
    """The range of the pixels of one image of floats.

    Attributes:
        largest: The largest value.
        is_whole: Whether all values are whole numbers.
    """

    largest: float
    is_whole: bool


def float_range(array: NDArray[Any]) -> FloatRange | None:
    """Return the range of an image; None if its pixels are not floats, or if there are none."""
    if array.dtype.kind != "f" or not array.size:
        return None
    return FloatRange(float(array.max()), bool((array % 1 == 0).all()))


def white_of(
    ranges: Mapping[int, FloatRange], train: Rows, given: White | None, names: Sequence[str]
) -> White:
    """Return the value of white in images of floats, by the largest value in train.

    Args:
        ranges: Row → range, for the images of floats in all parts; at least one.
        train: Rows of the train images.
        given: The value that the user chose; None decides by the values.
        names: Names of the images for messages, one per row.

    Raises:
        InputError: The range of train is not clear, or an image contradicts it.
    """
    # Without floats in train, those of the other parts decide.
    rows = [row for row in map(int, train) if row in ranges] or list(ranges)
    brightest = max(rows, key=lambda row: ranges[row].largest)
    high = ranges[brightest].largest
    white: White = 1 if high <= 1.0 else 255
    if given is not None:
        white = given
    elif not all(ranges[row].is_whole for row in rows):
        refuse_unclear_range(names[brightest], high)
    for row, found in ranges.items():
        if white == 1:
            refuse_above(names[row], found.largest, white)
        elif given is None and _looks_unscaled(found):
            raise InputError(
                f"{names[row]} has float values up to {found.largest:g}, but those of the "
                f"train images are up to {high:g}, so one of them is in 0..1 and the "
                "other in 0..255. Scale all images by one factor; if this image is almost black, "
                "pass ImageOptions(white=255)."
            )
    return white


def float_factor(name: str, pixels: Any, high: float, white: White | None) -> float:
    """Return the factor from floats to 0..255.

    Args:
        name: What the pixels are, for messages.
        pixels: Array or tensor of floats.
        high: The largest of them.
        white: The value of white in the data; None decides by ``high``.

    Raises:
        InputError: ``white`` is None and the range is unclear, or a value exceeds ``white``.
    """
    if white is None:
        if not bool((pixels % 1 == 0).all()):
            refuse_unclear_range(name, high)
        return 255.0 if high <= 1.0 else 1.0
    refuse_above(name, high, white)
    return 255.0 / white


def refuse_above(name: str, high: float, white: White) -> None:
    """Raise an InputError if ``high`` is above ``white`` by more than rounding errors."""
    if high > white * (1 + _ROUNDING):
        raise InputError(
            f"{name} has float values up to {high:g}, but the floats of these data are in "
            f"0..{white} (white={white}). Scale all images by the same factor as the train images, "
            f"and clip values above {white}; ImageOptions(white=…) sets the range when a model is "
            "trained."
        )


def refuse_unclear_range(name: str, high: float) -> None:
    """Check that float pixels that are not whole are clearly in 0..1 or in 0..255.

    Pixels of 0..1 exceed 1 slightly after bicubic resizing. Read as 0..255 they would be black.

    Args:
        name: What the pixels are, for the message.
        high: The largest of them.

    Raises:
        InputError: ``high`` is above 1 and below 16.
    """
    if 1.0 < high < LEAST_BRIGHT:
        raise InputError(
            f"{name} has float values up to {high:g}, which is neither clearly 0..1 nor 0..255: "
            "read as 0..255, it would be almost black. Clip values of 0..1 (values.clip(0, 1)), "
            "or give uint8 pixels (0 to 255), with one factor for the whole data set. "
            "ImageOptions(white=255) reads such images as almost black."
        )


def looks_unscaled(array: NDArray[Any], white: White | None) -> bool:
    """Return whether an image of floats is in 0..1 by its values, but is read in 0..255."""
    if white != 255 or (found := float_range(array)) is None:
        return False
    return _looks_unscaled(found)


def _looks_unscaled(found: FloatRange) -> bool:
    """Return whether values are in 0..1, or slightly above 1 as after bicubic resizing."""
    return found.largest < LEAST_BRIGHT and not found.is_whole


def to_levels(values: Any) -> NDArray[np.uint8]:
    """Return floats in 0..255, which may exceed 255 by rounding errors, as uint8."""
    rounded: NDArray[np.uint8] = np.rint(np.minimum(values, 255.0)).astype(np.uint8)
    return rounded
