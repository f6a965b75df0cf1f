"""``Augmentation``: how far training images are changed, as plain values of the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from flambeau.errors import InputError

# Tilted further, a part of the picture would lie behind the viewer.
_MOST_WARP = 0.5


@dataclass(frozen=True)
class Augmentation:
    """How far training images are changed; as JSON the plan's value "augmentation".

    Flip comes first, then the tilts of ``warp``, rotation, zoom and shift about the image's centre,
    then saturation, contrast and brightness, and erasing last. Every change of a sample has draws
    of its own, so switching one off leaves the others as they were.

    Attributes:
        flip: Mirror left and right, in half of the samples.
        rotate_degrees: Turn by up to this angle either way.
        zoom: Enlarge by a factor between these two; below 1 makes smaller.
        shift: Move by up to this share of the side, either way along both axes.
        probability: How often each of the changes but the flip happens.
        warp: Tilt as if seen from above or below, left or right: one edge grows by up to this
            share, the opposite one shrinks; 0 to 0.5. fastai's default is 0.2.
        brightness: Mid-grey becomes a grey between ``0.5 ± brightness / 2``; see
            `flambeau_vision.photometry.relight`. fastai's default is 0.2.
        contrast: Factor between ``1 - contrast`` and its inverse on the distance to mid-grey.
            fastai's default is 0.2.
        saturation: The same factor on the distance to grey; only of colour pictures.
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
        fits = (
            0.0 <= self.rotate_degrees <= 180.0
            and 0.0 < low <= high < float("inf")
            and 0.0 <= self.probability <= 1.0
            and 0.0 <= self.warp <= _MOST_WARP
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
        if not fits:
            raise InputError(
                f"{self} is out of range: rotate_degrees 0..180, zoom (low, high) with "
                f"0 < low <= high, probability 0..1, warp 0..{_MOST_WARP}, and shift, brightness, "
                "contrast, saturation and erase 0..1 (1 excluded)."
            )

    @property
    def changes(self) -> bool:
        """Whether an image may be changed at all."""
        others = self.resamples or self.relights or self.shift > 0.0 or self.erase > 0.0
        return self.flip or (others and self.probability > 0.0)

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated; flips and whole-pixel shifts only move them."""
        return self.rotate_degrees > 0.0 or self.zoom != (1.0, 1.0) or self.warp > 0.0

    @property
    def relights(self) -> bool:
        """Whether the colours of pixels change, which makes float32 of them."""
        return self.brightness > 0.0 or self.contrast > 0.0 or self.saturation > 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain values for the plan."""
        return {**asdict(self), "zoom": list(self.zoom)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``as_json``; what is left out keeps its default.

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
