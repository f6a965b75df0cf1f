"""The callbacks that every run has beside the user's own."""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.callbacks.checkpointing import Checkpointing
from flambeau.callbacks.history import HistoryWriter
from flambeau.callbacks.progress import ProgressBar
from flambeau.training.events import Callback


def with_standard(
    own: Sequence[Callback], *, quiet: bool = False, writes: bool = True
) -> tuple[Callback, ...]:
    """Progress, history and checkpoints, then ``own``; checkpoints last.

    Args:
        own: The user's; one of a standard kind, also one derived from it, takes its place.
        quiet: No progress.
        writes: Whether the user named a folder: history and a checkpoint after each epoch.
    """
    standard: list[Callback] = []
    if not quiet:
        standard.append(ProgressBar())
    if writes:
        standard.append(HistoryWriter())
    standard.append(Checkpointing(at_epoch_end=writes))
    kept = [c for c in standard if not any(isinstance(mine, type(c)) for mine in own)]
    # A checkpoint is of what the others have learned from the same event.
    return tuple(sorted([*kept, *own], key=lambda callback: isinstance(callback, Checkpointing)))
