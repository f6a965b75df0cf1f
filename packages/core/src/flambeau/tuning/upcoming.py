"""``UpcomingRun``: what the measurements before a run need to know about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flambeau.data.batch import Batch
from flambeau.data.facts import Facts
from flambeau.phases.phase import Phase
from flambeau.plan import Plan
from flambeau.training.components import Components
from flambeau.training.events import Callback
from flambeau.training.options import TrainingOptions
from flambeau.training.state import Position

Recipe = Callable[[Mapping[str, Any]], Sequence[Phase]]
"""``recipe(values) -> phases``: returns the phases of a fit for the plan's values."""


@dataclass(frozen=True)
class UpcomingRun:
    """The run that follows the measurements, which do not change it.

    Attributes:
        components: ``components(plan)`` returns model, task and loaders for the plan's values.
        options: ``options(plan)`` returns the training options for the plan's values.
        position: Epoch and step at which the run will start.
        facts: Facts about the data.
        samples: ``samples(n)`` returns a batch of n train samples without advancing a loader.
        callbacks: The callbacks of the run.
        log: A function that shows a line of text on the terminal.
    """

    components: Callable[[Plan], Components]
    options: Callable[[Plan], TrainingOptions]
    position: Position
    facts: Facts
    samples: Callable[[int], Batch]
    callbacks: Sequence[Callback]
    log: Callable[[str], None]
