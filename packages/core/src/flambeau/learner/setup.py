"""What a fit is made from: the ``Setup`` of the learner and the ``Request`` of the verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flambeau.data.data import Data
from flambeau.domain import Domain
from flambeau.learner.build import BuiltPlan
from flambeau.plan import Plan
from flambeau.training.events import Callback
from flambeau.training.history import History
from flambeau.training.options import TrainingOptions
from flambeau.training.state import Position

if TYPE_CHECKING:
    from flambeau.tuning.auto_run import AutoRun
    from flambeau.tuning.upcoming import Recipe


@dataclass(frozen=True)
class Setup:
    """What a learner brings to a fit.

    Attributes:
        data: Every data choice.
        domain: Of the data.
        plan: As it is before the fit.
        built: ``built(plan)`` gives the objects that the plan names, each made once.
        training: The training options.
        history: Gets a row an epoch.
        position: Where the fit starts.
        callbacks: The user's.
        seed: Key of every random draw.
        quiet: No output on the terminal.
        folder: Of the run; None writes nothing unless the run is long or interrupted.
        fingerprint: Distinguishes the data from others, in checkpoints.
        examines: Whether the doctor runs before the first step.
    """

    data: Data
    domain: Domain
    plan: Plan
    built: Callable[[Plan], BuiltPlan]
    training: TrainingOptions
    history: History
    position: Position = field(default_factory=Position)
    callbacks: Sequence[Callback] = ()
    seed: int = 0
    quiet: bool = False
    folder: Path | None = None
    fingerprint: Mapping[str, Any] = field(default_factory=dict[str, Any])
    examines: bool = False


@dataclass(frozen=True)
class Request:
    """What a verb asks for.

    Attributes:
        recipe: Makes the phases from the plan's values.
        choices: Values that the verb was given, by key of the plan.
        finds_lr: Whether the learning rate may be measured: not where the user gave the phases.
        auto: The run under a time budget, which makes its phases itself.
    """

    recipe: Recipe
    choices: Mapping[str, Any] = field(default_factory=dict[str, Any])
    finds_lr: bool = True
    auto: AutoRun | None = None
