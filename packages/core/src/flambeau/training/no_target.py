"""Messages about steps and epochs without samples or targets, which change no weights."""

from __future__ import annotations

import warnings

from flambeau.errors import FlambeauWarning, InputError

FIX = (
    "Remove samples whose targets are all ignored (ignore_index) or whose sample_weight is 0, or "
    "choose a larger batch_size if only a few samples have targets."
)
"""What to do about samples without a target."""


def step_without_samples(step: int) -> InputError:
    """Return the error for a step whose batches have no samples.

    Args:
        step: Index of the step in the run.
    """
    return InputError(
        f"Step {step} would train on nothing: its batch has no samples. Let the loader leave "
        "out batches without samples (a collate_fn that drops all rows)."
    )


def warn_of_skipped_steps(epoch: int, skipped: int, steps: int) -> None:
    """Warn that steps of an epoch were skipped, because their samples have no target.

    Args:
        epoch: Number of the epoch, from 1.
        skipped: Number of steps of the epoch whose loss has the weight 0.
        steps: Number of optimizer steps of the epoch.
    """
    warnings.warn(
        f"[steps-without-targets] {skipped:,} of the {steps:,} steps of epoch {epoch} changed no "
        "weights, because no sample of their batches has a target: the weight of the loss is 0. "
        f"{FIX} Later epochs are counted in the column steps_without_targets of the history.",
        FlambeauWarning,
        stacklevel=4,
    )


def epoch_without_targets(epoch: int, steps: int) -> InputError:
    """Return the error for an epoch whose samples have no target.

    Args:
        epoch: Number of the epoch, from 1.
        steps: Number of optimizer steps of the epoch.
    """
    return InputError(
        f"Epoch {epoch} trained on nothing: the weight of the loss, which counts the targets, is 0 "
        f"in each of its {steps:,} steps. {FIX}"
    )
