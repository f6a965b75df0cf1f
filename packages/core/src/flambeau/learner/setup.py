"""The inputs of a fit: ``Setup``, ``Request``, and options and callbacks with the plan's values.

``run_inputs`` makes of them what a run is built from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flambeau.callbacks.default_callbacks import with_default_callbacks
from flambeau.callbacks.early_stopping import EarlyStopping
from flambeau.data.data import Data
from flambeau.data.loader import has_length
from flambeau.domain import Domain
from flambeau.learner.build import BuiltPlan, UserObjects
from flambeau.phases.phase import Phase, divides_epochs, with_evaluations
from flambeau.plan import Plan
from flambeau.training.components import Components
from flambeau.training.events import Callback
from flambeau.training.history import History
from flambeau.training.options import TrainingOptions
from flambeau.training.run import RunSettings
from flambeau.training.state import Position

if TYPE_CHECKING:
    from flambeau.callbacks.layer_inspection import LayerInspection
    from flambeau.tuning.auto_run import AutoRun
    from flambeau.tuning.upcoming import Recipe


SHARED = ("accumulate", "clip_norm", "keep_best")
"""Training options that are keys of the plan, too."""


@dataclass(frozen=True)
class Setup:
    """The state of a learner that a fit uses.

    Attributes:
        data: The data with their splits.
        domain: The domain of the data.
        plan: The plan before the fit.
        built: ``built(plan)`` returns the objects that the plan specifies.
        training: The training options.
        history: The history to which the fit adds a row per evaluation.
        position: Epoch and step at which the fit starts.
        callbacks: The user's callbacks.
        inspection: Watches the layers in some steps; None if ``inspect`` was not called.
        seed: Seed of every random draw.
        quiet: Whether to show no progress.
        folder: Folder of the run; None writes nothing unless the run is long or interrupted.
        own_folder: Folder in which the learner has trained already, and may train again.
        fingerprint: Identifies the data in checkpoints.
        examines: Whether the doctor runs before the first step.
        changeable: The user's model and task, if the plan may still change values that need a new
            model; None if the model exists already, or the user fixed the whole plan.
    """

    data: Data
    domain: Domain
    plan: Plan
    built: Callable[[Plan], BuiltPlan]
    training: TrainingOptions
    history: History
    position: Position = field(default_factory=Position)
    callbacks: Sequence[Callback] = ()
    inspection: LayerInspection | None = None
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


def options_of(
    training: TrainingOptions,
    values: Mapping[str, Any],
    callbacks: Iterable[object] = (),
    *,
    automatic: bool = False,
) -> TrainingOptions:
    """Return the options with the plan's values for the keys of `SHARED`, unless they set them.

    Args:
        training: The user's options.
        values: The plan's values.
        callbacks: The user's callbacks; one that restores the best epoch decides which it is.
        automatic: Whether ``fit_auto`` runs, which selects the best epoch itself.
    """
    found: dict[str, Any] = {}
    if training.accumulate == 1:
        found["accumulate"] = values.get("accumulate", 1)
    if training.clip_norm is None:
        found["clip_norm"] = values.get("clip_norm")
    restores = automatic or any(getattr(each, "restore_best", False) for each in callbacks)
    if training.keep_best is None and not restores:
        found["keep_best"] = values.get("keep_best")
    return replace(training, **found)


def callbacks_of(
    setup: Setup, values: Mapping[str, Any], *, automatic: bool = False
) -> tuple[Callback, ...]:
    """Return the callbacks of a run: the defaults, the user's, and early stopping.

    Early stopping follows the plan's ``patience`` and watches the column of ``keep_best``, else the
    validation loss. A callback of the user that stops early replaces it.

    Args:
        setup: The state of the learner.
        values: The plan's values.
        automatic: Whether ``fit_auto`` runs, which decides itself when to end.
    """
    callbacks, patience = list(setup.callbacks), values.get("patience")
    writes = setup.folder is not None
    if setup.inspection is not None:
        setup.inspection.writes = writes
        # First: another callback may interrupt the run in the event.
        callbacks.insert(0, setup.inspection)
    given = any(isinstance(each, EarlyStopping) for each in callbacks)
    if patience is not None and not given and not automatic:
        column = values.get("keep_best") or "valid_loss"
        callbacks.append(EarlyStopping(column, patience, restore_best=False))
    return with_default_callbacks(callbacks, quiet=setup.quiet, writes=writes)


def run_inputs(
    setup: Setup,
    plan: Plan,
    phases: Sequence[Phase],
    auto: AutoRun | None = None,
    first_epoch: int = 0,
) -> tuple[Components, RunSettings]:
    """Return the components and the settings of a run with these phases.

    Raises:
        InputError: The train loader has no length, and a phase is measured in epochs.
    """
    from flambeau.learner.run_folder import agree_on_folder

    components = setup.built(plan).components(plan.values)
    options = options_of(setup.training, plan.values, setup.callbacks, automatic=auto is not None)
    intervals = None
    phases = with_evaluations(phases, None if auto else plan.values.get("evaluate_every"))
    if auto is None and (divides_epochs(phases) or not has_length(components.train)):
        from flambeau.training.step_intervals import Intervals

        intervals = Intervals(components.train, options.accumulate, phases, first_epoch)
    settings = RunSettings(
        options=options,
        phases=tuple(phases),
        callbacks=callbacks_of(setup, plan.values, automatic=auto is not None),
        plan=plan.to_json,
        # Only the name is chosen here; the folder is created when something is written.
        folder=agree_on_folder(setup.folder, setup.domain.name),
        data=setup.fingerprint,
        meaning=setup.built(plan).meaning,
        planner=auto,
        intervals=intervals,
    )
    return components if auto is None else auto.with_intervals(components), settings
