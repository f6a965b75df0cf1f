"""``profile_ranks``: the profile of a run of several processes, which is that of its slowest rank.

Every rank makes and records the same steps, those of a fit of several processes. A rank that has
less work waits for the others when gradients are exchanged, so what limits the speed is seen on the
rank that works longest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from flambeau.distributed.processes import ProcessGroup
from flambeau.inspect.profile_parts import Measured
from flambeau.inspect.profile_result import Profile
from flambeau.inspect.profiled_run import Clock, ProfiledRun, Segment, profiled_inputs
from flambeau.training.components import Components
from flambeau.training.history import History
from flambeau.training.ranks.ranked_run import RankedRun
from flambeau.training.run import RunSettings
from flambeau.training.state import Position
from flambeau.wording import format_seconds


class RankedProfiledRun(ProfiledRun, RankedRun):
    """The ``ProfiledRun`` of one rank.

    Args:
        components: As for ``RankedRun``.
        settings: As for ``RankedRun``; callbacks are not called.
        position: Position before the first step.
        segments: The segments in their order, the same on every rank.
        clock: Returns seconds from any starting point.
        group: The ranks that train together.
    """

    def __init__(
        self,
        components: Components,
        settings: RunSettings,
        position: Position,
        segments: Sequence[Segment],
        clock: Clock,
        group: ProcessGroup,
    ) -> None:
        components, settings = profiled_inputs(components, settings, position, segments)
        RankedRun.__init__(self, components, settings, History(), position, group)
        self.prepare(segments, clock)

    def is_late(self) -> bool:
        """Return whether the time is over on any rank, so that all make the same steps."""
        return self.group.sum_over_ranks([float(super().is_late())])[0] > 0


def profile_ranks(
    group: ProcessGroup, measured: Measured, of_rank: Callable[[], Profile]
) -> Profile:
    """Return the profile of the rank that works longest, the same on every rank.

    Args:
        group: The ranks.
        measured: What this rank has measured.
        of_rank: Returns the profile of this rank; it must not communicate.
    """
    everywhere = group.all_gather(measured)
    own_s = [each.whole_s - each.communication_s for each in everywhere]
    slowest = max(range(group.world_size), key=own_s.__getitem__)
    found = group.run_on(slowest, of_rank)
    fastest = min(own_s)
    note = (
        f"This is rank {slowest} of {group.world_size}, which works longest: "
        f"{format_seconds(own_s[slowest])} per step; the shortest work of a rank is "
        f"{format_seconds(fastest)}."
    )
    samples = sum(each.samples for each in everywhere)
    return replace(found, samples=samples, notes=(note, *found.notes))
