"""``Attributions``: how much each part of a sample moves an output of the model."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Attributions:
    """How much each part of one sample moves one output of the model.

    The parts are tokens, columns or elements of the input tensor; for images there is a map in
    place of the parts.

    Attributes:
        output: Name of the output: a class, a label or a value.
        method: How the values were computed: "integrated gradients".
        parts: Name of each part, in the order of the sample; empty for images.
        values: Value of each part: positive if it raises the output.
        heat: For images the value of each pixel, float32 ``(height, width)``, on the CPU.
        image: The image as the model sees it, uint8 ``(height, width, 3)``.
        total: What all values add up to: the output minus that of the baseline; None if the method
            does not promise a sum.
    """

    output: str
    method: str
    parts: tuple[str, ...] = ()
    values: tuple[float, ...] = ()
    heat: Tensor | None = None
    image: Tensor | None = None
    total: float | None = None

    def strongest(self, n: int = 5) -> list[tuple[str, float]]:
        """Return the parts with the largest absolute values, the largest first."""
        pairs = zip(self.parts, self.values, strict=True)
        return sorted(pairs, key=lambda pair: -abs(pair[1]))[:n]
