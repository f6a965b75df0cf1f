"""The inputs of a fit: the learner's ``Setup`` and the ``Request`` of the called method."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flambeau.data.data import Data
from flambeau.domain import Domain
from flambeau.learner.build import BuiltPlan, UserObjects
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
    """The state of a learner that a fit uses.

    Attributes:
        data: The data with their splits.
        domain: The domain of the data.
        plan: The plan before the fit.
        built: ``built(plan)`` returns the objects that the plan specifies.
        training: The training options.
        history: Receives a row per epoch.
        position: Epoch and step at which the fit starts.
        callbacks: The user's callbacks.
        seed: Seed of every random draw.
        quiet: Whether to show no progress.
        folder: Folder of the run; None writes nothing unless the run is long or interrupted.
        own_folder: Folder in which the learner has trained already; another learner's run is never
            overwritten.
        fingerprint: Identifies the data in checkpoints.
        examines: Whether the doctor runs before the first step.
        changeable: The user's objects, if values that need a new model may still change; None if
            the objects of the plan exist already, or the user fixed the whole plan.
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
    own_folder: Path | None = None
    fingerprint: Mapping[str, Any] = field(default_factory=dict[str, Any])
    examines: bool = False
    changeable: UserObjects | None = None


@dataclass(frozen=True)
class Request:
    """The training that a method of the learner requests.

    Attributes:
        recipe: Returns the phases for the plan's values.
        choices: Arguments of the method, by key of the plan.
        may_find_lr: Whether the learning rate may be measured; false if the user gave the phases.
        auto: A run with a time budget, which chooses its phases itself; None for any other run.
    """

    recipe: Recipe
    choices: Mapping[str, Any] = field(default_factory=dict[str, Any])
    may_find_lr: bool = True
    auto: AutoRun | None = None


@dataclass(frozen=True)
class Resume:
    """The run that ``Learner.resume`` continues.

    Attributes:
        path: A checkpoint or a run's folder; None if the learner has no folder.
        user_keys: Keys of the choices that the user passed to the learner.
        is_built: Whether the learner's objects are built, so that they cannot change.
    """

    path: str | Path | None
    user_keys: Collection[str]
    is_built: bool
