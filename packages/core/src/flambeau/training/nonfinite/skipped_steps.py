"""What ``nonfinite="skip"`` does beside the masked update: count updates, keep carried state."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flambeau.errors import FlambeauWarning, NonFiniteError
from flambeau.nested import map_tensors, tensors_in

if TYPE_CHECKING:
    from flambeau.training.run import Run

COLUMN = "nonfinite_updates"
"""Column of the history: the number of skipped updates of optimizers, in rows that have any."""


def columns_of_skipped(run: Run) -> dict[str, int]:
    """Return the column of the skipped updates since the last evaluation; empty if there are none.

    Args:
        run: The run, at the end of an epoch.

    Raises:
        NonFiniteError: All updates of an epoch were skipped, and not by the loss scale of fp16.

    Warns:
        FlambeauWarning: [nonfinite-updates] Some updates were skipped; at most once per fit.
    """
    skipped, checked = run.update.skipped()
    run.update.end_epoch()
    if not skipped:
        return {}
    history, epoch = run.state.history, run.data_epoch + 1
    if run.reports_skipped_steps and not run.precision.scales_loss:
        if skipped == checked and run.spans_epoch():
            raise NonFiniteError(
                f"Epoch {epoch} changed no weights: the loss or a gradient of each of its "
                f'{checked:,} updates is not finite, and nonfinite="skip" drops such updates. '
                'Lower lr or clip gradients (clip_norm=1.0); nonfinite="raise" names the layer and '
                "the samples of the first one."
            )
        if run.is_main and not any(COLUMN in row for row in history.rows[history.first_row :]):
            warnings.warn(
                f"[nonfinite-updates] {skipped:,} of the {checked:,} updates of epoch {epoch} "
                "changed no weights, because the loss or a gradient is not finite "
                '(nonfinite="skip"). nonfinite="raise" names the layer and the samples. Later '
                f"epochs are counted in the column {COLUMN} of the history.",
                FlambeauWarning,
                stacklevel=4,
            )
    return {COLUMN: skipped}


def carry_after(before: Any, after: Any, skipped: Tensor | bool) -> Any:
    """Return the carried state after a step: that before it if the step was skipped.

    Args:
        before: The carried state before the step; None in the first step.
        after: The carried state that the step left.
        skipped: Whether the step was skipped; on an accelerator a 0-d tensor, 1 for a skipped step.
    """
    if not isinstance(skipped, Tensor):
        return before if skipped else after
    earlier = list(tensors_in(before))
    later = list(tensors_in(after))
    if [each.shape for each in earlier] != [each.shape for each in later]:
        earlier = [torch.zeros_like(each) for each in later]
    remaining = iter(earlier)
    return map_tensors(
        lambda tensor: torch.where(skipped > 0, next(remaining).to(tensor), tensor), after
    )
