"""``make_run``: create the run of this process, which may be one rank of several."""

from __future__ import annotations

from dataclasses import replace

from flambeau.distributed import processes
from flambeau.training.components import Components
from flambeau.training.history import History
from flambeau.training.run import Run, RunSettings
from flambeau.training.state import Position


def make_run(
    components: Components, settings: RunSettings, history: History, position: Position
) -> Run:
    """Return a ``Run``, or a ``RankedRun`` if several processes train together.

    Args:
        components: The objects of the run; the loaders return the part of this process.
        settings: Settings of the fit; callbacks that only rank 0 uses are removed on other ranks.
        history: Rows and step losses so far.
        position: Position from which the run starts.
    """
    group = processes.initialize()
    if group is None:
        return Run(components, settings, history, position)
    from flambeau.training.ranks.rank_states import RankStates
    from flambeau.training.ranks.ranked_run import RankedRun

    callbacks = list(settings.callbacks)
    if not group.is_main:
        callbacks = [each for each in callbacks if each.every_process]
    # After those whose state it exchanges, and before those that write files.
    last = max((i for i, each in enumerate(callbacks) if each.every_process), default=-1)
    callbacks.insert(last + 1, RankStates(group))
    settings = replace(settings, callbacks=callbacks)
    return RankedRun(components, settings, history, position, group)
