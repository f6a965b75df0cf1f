"""``PixelFormat``: how arrays of pixels are read, the same in training and in predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from flambeau.errors import InputError, did_you_mean
from flambeau_vision.float_scale import White
from flambeau_vision.resize import Layout


@dataclass(frozen=True)
class PixelFormat:
    """How pixels are read that are not of 8 bits, and the axes of arrays.

    Attributes:
        bits: Number of significant bits of 16-bit pixels; see `flambeau_vision.decode.decode`.
        white: The value of white in arrays of floats, 1 or 255; None, if no train image was an
            array of floats, decides by the largest value of each image.
        layout: Axes of one image in arrays, "HW", "HWC" or "CHW"; None infers them, and then an
            array of three axes is one image if one of the axes can be the channels.

    Raises:
        InputError: A value is invalid.
    """

    bits: int = 16
    white: White | None = None
    layout: Layout | None = None

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 8 <= self.bits <= 16:
            raise InputError(f"bits={self.bits!r} is invalid. Give a number of bits from 8 to 16.")
        if self.white not in (None, *get_args(White)) or self.white is True:
            raise InputError(f"white={self.white!r} is invalid. Give 1, 255 or None.")
        if self.layout not in (None, *get_args(Layout)):
            raise InputError(f"Unknown layout={self.layout!r}. Choose 'HW', 'HWC' or 'CHW'.")

    @classmethod
    def of(cls, given: PixelFormat | Mapping[str, Any] | None) -> PixelFormat:
        """Return ``given``, also from the JSON object in an export; None is the default format.

        Raises:
            InputError: The object has an unknown name, or a value is invalid.
        """
        if given is None or isinstance(given, PixelFormat):
            return given or cls()
        known = [entry.name for entry in fields(cls)]
        for name in given:
            if name not in known:
                raise InputError(f"Unknown name {name!r} in pixels. {did_you_mean(name, known)}")
        return cls(**given)
