"""Errors for steps and epochs that train on nothing: the weight of their loss is 0."""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.wording import name_some

FIX = (
    "Remove samples whose targets are all ignored (ignore_index) or whose sample_weight is 0, or "
    "choose a larger batch_size if only a few samples have targets."
)
"""What to do about samples without a target."""


def step_without_targets(step: int, batches: Sequence[Batch]) -> InputError:
    """Return the error for a step whose samples have no target.

    Args:
        step: Index of the step in the run.
        batches: The micro-batches of the step.
    """
    numbers = [int(i) for batch in batches if batch.indices is not None for i in batch.indices]
    named = f" (samples {name_some(numbers)})" if numbers else ""
    if not sum(map(len, batches)):
        return InputError(
            f"Step {step} would train on nothing: its batch has no samples. Let the loader leave "
            "out batches without samples (a collate_fn that drops all rows)."
        )
    return InputError(
        f"Step {step} would train on nothing: none of its {sum(map(len, batches))} samples{named} "
        f"has a target, so the weight of the loss is 0. {FIX}"
    )


def epoch_without_targets(epoch: int, steps: int) -> InputError:
    """Return the error for an epoch whose samples have no target.

    Args:
        epoch: Number of the epoch, from 1.
        steps: Its optimizer steps.
    """
    return InputError(
        f"Epoch {epoch} trained on nothing: the weight of the loss, which counts the targets, is 0 "
        f"in each of its {steps:,} steps. {FIX}"
    )
