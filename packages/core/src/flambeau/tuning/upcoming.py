"""``UpcomingRun``: what the measurements before a fit need of the run that they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flambeau.data.batch import Batch
from flambeau.phases.phase import Phase
from flambeau.plan import Plan
from flambeau.training.components import Components
from flambeau.training.options import TrainingOptions
from flambeau.training.state import Position

Recipe = Callable[[Mapping[str, Any]], Sequence[Phase]]
"""``recipe(values) -> phases``: from the plan's values to the phases of a fit."""


@dataclass(frozen=True)
class UpcomingRun:
    """The run that is measured for; measuring leaves all of it as it was.

    Attributes:
        components: ``components(plan)`` gives model, task and loaders with the plan's values.
        options: ``options(plan)`` gives the training options with the plan's values.
        position: Where the run will start.
        facts: Of the data.
        samples: ``samples(n)`` gives a batch of n train samples without moving a loader.
        log: Shows a line on the terminal.
    """

    components: Callable[[Plan], Components]
    options: Callable[[Plan], TrainingOptions]
    position: Position
    facts: Mapping[str, Any]
    samples: Callable[[int], Batch]
    log: Callable[[str], None]
