"""The callbacks that every run has in addition to the user's."""

from __future__ import annotations

from collections.abc import Sequence

from flambeau.callbacks.checkpointing import Checkpointing
from flambeau.callbacks.history_writer import HistoryWriter
from flambeau.callbacks.progress_bar import ProgressBar
from flambeau.training.events import Callback


def with_default_callbacks(
    callbacks: Sequence[Callback], *, quiet: bool = False, writes: bool = True
) -> tuple[Callback, ...]:
    """Return progress bar, history writer and run record, then ``callbacks``, then checkpoints.

    Args:
        callbacks: The user's callbacks; a callback of a default's class, or of a subclass,
            replaces that default.
        quiet: Whether to omit the progress bar.
        writes: Whether to write history and record of the run, and a checkpoint after each epoch:
            if the user named a folder.
    """
    defaults: list[Callback] = []
    if not quiet:
        defaults.append(ProgressBar())
    if writes:
        from flambeau.callbacks.run_record import RunRecord

        defaults += [HistoryWriter(), RunRecord()]
    defaults.append(Checkpointing(at_epoch_end=writes))
    kept = [each for each in defaults if not any(isinstance(c, type(each)) for c in callbacks)]
    # Last, so that a checkpoint contains the state of the others after the same event.
    every = [*kept, *callbacks]
    return tuple(sorted(every, key=lambda callback: isinstance(callback, Checkpointing)))
