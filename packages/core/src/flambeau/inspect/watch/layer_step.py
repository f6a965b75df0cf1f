"""``LayerStep``: what one step has recorded of one layer, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flambeau.inspect.watch.attention_statistics import ATTENTION_COLUMNS
from flambeau.inspect.watch.layer_statistics import GRADIENT_COLUMNS, OUTPUT_COLUMNS
from flambeau.inspect.watch.log_bins import N_BINS

_TWINS = slice(OUTPUT_COLUMNS.index("twins"), OUTPUT_COLUMNS.index("twin_b") + 1)


@dataclass(eq=False)
class LayerStep:
    """Rows of statistics of each call of a layer in a step; several calls give their mean.

    Equal units are those of the call with most of them.

    A layer is called several times with accumulation, as a shared module or as a recurrent cell.

    Attributes:
        outputs: ``output_statistics`` of each call.
        histograms: Of the outputs.
        gradients: ``gradient_statistics`` of each output that got a gradient.
        gradient_histograms: Of the gradients.
        attention: ``attention_row`` of each call.
        active: Which units were not 0 in any call, bool; None if that is not recorded.
        per_unit: Number of values of a unit, over samples, positions and calls.
    """

    outputs: list[Tensor] = field(default_factory=list[Tensor])
    histograms: list[Tensor] = field(default_factory=list[Tensor])
    gradients: list[Tensor] = field(default_factory=list[Tensor])
    gradient_histograms: list[Tensor] = field(default_factory=list[Tensor])
    attention: list[Tensor] = field(default_factory=list[Tensor])
    active: Tensor | None = None
    per_unit: int = 0

    def add_active(self, active: Tensor) -> None:
        """Add the active units of a call; if their number changed, only the new ones count."""
        before = self.active
        self.active = active if before is None or before.shape != active.shape else before | active

    def row(self) -> Tensor:
        """Return all statistics of the step, float32 ``(ROW_SIZE,)``; NaN where there is none."""
        device = next(each[0].device for each in (self.outputs, self.attention) if each)
        silent = torch.full((1,), torch.nan, device=device)
        if self.active is not None:
            silent = (~self.active).sum().float().reshape(1).to(device)
        parts = [
            self._outputs(device),
            silent,
            _mean(self.gradients, len(GRADIENT_COLUMNS), device),
            _mean(self.attention, len(ATTENTION_COLUMNS), device),
            _mean(self.histograms, N_BINS, device),
            _mean(self.gradient_histograms, N_BINS, device),
        ]
        return torch.cat(parts)

    def _outputs(self, device: torch.device) -> Tensor:
        mean = _mean(self.outputs, len(OUTPUT_COLUMNS), device)
        if len(self.outputs) > 1:  # a mean of unit numbers has no meaning
            twins = torch.stack([row.to(device)[_TWINS] for row in self.outputs])
            # On the device: the host must not wait for the number of the call.
            most = twins[:, 0].argmax().reshape(1)
            mean[_TWINS] = twins.index_select(0, most).squeeze(0)
        return mean


def _mean(rows: Sequence[Tensor], size: int, device: torch.device) -> Tensor:
    if not rows:
        return torch.full((size,), torch.nan, device=device)
    return torch.stack([row.to(device) for row in rows]).mean(0)
