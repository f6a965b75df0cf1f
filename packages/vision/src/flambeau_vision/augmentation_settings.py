"""``Augmentation``: the strength of each augmentation, as plain values of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from flambeau.errors import InputError

# With a stronger tilt, part of the image would be behind the viewer.
_MAX_WARP = 0.5


@dataclass(frozen=True)
class Augmentation:
    """Strength of each augmentation of training images, the plan's value "augmentation".

    Order: flip, perspective (``warp``), rotation, zoom and shift about the image's centre, then
    saturation, contrast and brightness, last erasing. Each augmentation has its own random numbers
    per sample, so switching one off does not change the others.

    Attributes:
        flip: Flip horizontally, with probability 0.5.
        rotate_degrees: Rotate by up to this angle in either direction.
        zoom: Range of the zoom factor (low, high); below 1 zooms out.
        shift: Shift by up to this share of the side, in either direction along both axes.
        probability: Probability of each augmentation except the flip.
        warp: Perspective change as if seen from above or below, left or right: one edge grows by
            up to this share, the opposite one shrinks; 0 to 0.5. fastai's default is 0.2.
        brightness: Mid-grey is mapped to a grey in ``0.5 ± brightness / 2``; see
            `flambeau_vision.color_jitter.color_jitter`. fastai's default is 0.2.
        contrast: Multiply the distance to mid-grey by a factor between ``1 - contrast`` and its
            inverse. fastai's default is 0.2.
        saturation: Multiply the distance to grey by a factor between ``1 - saturation`` and its
            inverse; only for colour images.
        erase: Fill a rectangle of up to this share of the area (at least 0.02) with one colour;
            0.33 in the paper (Zhong et al., "Random erasing data augmentation", 2017).

    Raises:
        InputError: A value is out of its range.
    """

    flip: bool = True
    rotate_degrees: float = 10.0
    zoom: tuple[float, float] = (1.0, 1.1)
    shift: float = 0.05
    probability: float = 0.75
    warp: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "zoom", tuple(self.zoom))
        low, high = self.zoom
        valid = (
            0.0 <= self.rotate_degrees <= 180.0
            and 0.0 < low <= high < float("inf")
            and 0.0 <= self.probability <= 1.0
            and 0.0 <= self.warp <= _MAX_WARP
            and all(
                0.0 <= value < 1.0
                for value in (
                    self.shift,
                    self.brightness,
                    self.contrast,
                    self.saturation,
                    self.erase,
                )
            )
        )
        if not valid:
            raise InputError(
                f"{self} is out of range: rotate_degrees 0..180, zoom (low, high) with "
                f"0 < low <= high, probability 0..1, warp 0..{_MAX_WARP}, and shift, brightness, "
                "contrast, saturation and erase 0..1 (1 excluded)."
            )

    @property
    def is_active(self) -> bool:
        """Whether any augmentation is on."""
        others = self.resamples or self.changes_colors or self.shift > 0.0 or self.erase > 0.0
        return self.flip or (others and self.probability > 0.0)

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated; flips and whole-pixel shifts only move them."""
        return self.rotate_degrees > 0.0 or self.zoom != (1.0, 1.0) or self.warp > 0.0

    @property
    def changes_colors(self) -> bool:
        """Whether pixel values change; if so, the images are converted to float32."""
        return self.brightness > 0.0 or self.contrast > 0.0 or self.saturation > 0.0

    def as_json(self) -> dict[str, Any]:
        """Return plain values for the plan."""
        return {**asdict(self), "zoom": list(self.zoom)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings that ``as_json`` wrote; missing names get their default.

        Raises:
            InputError: A name is unknown.
        """
        known = cls.__dataclass_fields__
        unknown = [name for name in values if name not in known]
        if unknown:
            raise InputError(
                f"Augmentation has no {', '.join(map(repr, unknown))}; it has {', '.join(known)}."
            )
        return cls(**values)
