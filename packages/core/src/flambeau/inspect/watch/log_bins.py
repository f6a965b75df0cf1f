"""``LogBins``: histograms over fixed logarithmic bins, computed on the device.

The bins are the same in all steps, so that histograms can be drawn over time, and their number does
not depend on the values, so that nothing is read from the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

PER_SIGN = 24
"""Bins for negative values, and as many for positive ones."""

N_BINS = 2 * PER_SIGN + 1
"""Bins in order of their values: negative ones, one around zero, positive ones."""


@dataclass(frozen=True)
class LogBins:
    """Bins of equal width on a logarithmic scale, for both signs, and one bin around zero.

    Attributes:
        low: log2 of the smallest absolute value outside the bin around zero.
        octaves: Width of a bin, a power of two: the largest absolute value in it is
            ``2 ** octaves`` times the smallest one. Values beyond the last bin are counted in it.
    """

    low: int
    octaves: int

    def shares(self, values: Tensor) -> Tensor:
        """Return the share of the values in each bin, float32 ``(N_BINS,)``, on their device.

        Args:
            values: Real numbers of any shape; NaN counts as zero.
        """
        flat = values.detach().reshape(-1).float().nan_to_num(nan=0.0, posinf=torch.inf)
        # The exponent in the bits of a float32 is the whole part of log2 of its absolute value;
        # log2 itself takes twenty times as long for values of 0. Of 0 it is below every bin.
        bits = flat.view(torch.int32)
        size = ((bits >> 23) & 255) - (127 + self.low)
        level = ((size >> (self.octaves.bit_length() - 1)) + 1).clamp(0, PER_SIGN)
        sign = (bits >> 31) | 1
        index = (PER_SIGN + sign * level).long()
        counts = torch.zeros(N_BINS, device=flat.device)
        return counts.scatter_add_(0, index, torch.ones_like(flat)) / max(flat.numel(), 1)

    def edges(self) -> list[float]:
        """Return the bounds of the bins in order, ``N_BINS + 1`` numbers."""
        positive = [2.0 ** (self.low + self.octaves * number) for number in range(PER_SIGN + 1)]
        return [-each for each in reversed(positive)] + positive


OUTPUT_BINS = LogBins(low=-16, octaves=1)
"""Of outputs: from 2⁻¹⁶ to 2⁸."""

GRADIENT_BINS = LogBins(low=-40, octaves=2)
"""Of gradients, which are smaller: from 2⁻⁴⁰ to 2⁸."""
