"""What happens between a verb and a trained model, stage by stage, from top to bottom.

    decide    the verb's values become choices of the plan
    measure   what the plan leaves open is measured, once
    build     model, task, loaders and optimizers become a run
    train     the loop runs the phases
    record    the outcome goes into the plan

The plan is a value that each stage takes and returns; nothing here changes the learner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from flambeau.callbacks import ProgressBar
from flambeau.callbacks.default_callbacks import with_default_callbacks
from flambeau.device import num_threads
from flambeau.distributed.processes import run_on_main
from flambeau.learner.planning import options_of
from flambeau.learner.run_folder import agree_on_folder
from flambeau.learner.setup import Request, Setup
from flambeau.phases.phase import Phase
from flambeau.plan import Plan
from flambeau.plan.rules_machine import TO_MEASURE
from flambeau.training.loop import fit as run_phases
from flambeau.training.ranks.make_run import make_run
from flambeau.training.run import Run, RunSettings
from flambeau.training.run_state.resume import restore_or_roll_back

if TYPE_CHECKING:
    from flambeau.tuning.auto_run import AutoRun


Started = Callable[[Plan, Run], None]
"""Called when plan and run are complete, before the first step."""


def fit(setup: Setup, request: Request, started: Started) -> Plan:
    """Train as the verb asks.

    Args:
        setup: Of the learner.
        request: Of the verb.
        started: Called before the first step: an interrupted fit keeps its plan.

    Returns:
        The plan with everything that was decided, measured and recorded.
    """
    plan = decide(setup.plan, request.choices)
    plan, phases = measure(setup, plan, request)
    run = build(setup, plan, phases, request.auto)
    examine(setup, plan, run)
    started(plan, run)
    train(setup, plan, run, request.auto)
    return record(plan, run, request.auto)


def resume(
    setup: Setup,
    phases: Sequence[Phase],
    tree: Mapping[str, Any],
    auto: AutoRun | None,
    started: Started,
) -> Plan:
    """Continue an interrupted run; its checkpoint has decided and measured everything.

    Args:
        setup: Of the learner, with the plan of the run.
        phases: Of the checkpoint.
        tree: Of the checkpoint.
        auto: The run under a time budget that the checkpoint holds; None for another run.
        started: As for ``fit``.

    Raises:
        ResumeError: The checkpoint belongs to another model, other data or another plan.
        ArtefactError: A part of the checkpoint does not fit the run.
    """
    run = build(setup, setup.plan, phases, auto)
    restore_or_roll_back(run, tree)
    started(setup.plan, run)
    train(setup, setup.plan, run)
    return record(setup.plan, run, auto)


# ---------------------------------------------------------------- the stages


def decide(plan: Plan, choices: Mapping[str, Any]) -> Plan:
    """Return the plan with the verb's values as the user's choices.

    Raises:
        PlanError: A value is not valid for its key.
    """
    for key, value in choices.items():
        if value != plan[key].value:
            plan = plan.override(key, value)
    return plan


def measure(setup: Setup, plan: Plan, request: Request) -> tuple[Plan, Sequence[Phase]]:
    """Return the plan with everything that had to be measured, and the phases of the run."""
    phases = request.recipe(plan.values)
    if request.auto is None and not _is_open(plan, phases, request):
        return plan, phases
    from flambeau.tuning.measure import measure as measure_open_choices
    from flambeau.tuning.upcoming import UpcomingRun

    built = setup.built(plan)
    upcoming = UpcomingRun(
        components=lambda plan: built.components(plan.values),
        options=lambda plan: options_of(setup.training, plan.values),
        position=setup.position,
        facts=setup.data.facts(),
        samples=built.sample_batch,
        say=_silent if setup.quiet else ProgressBar.write_line,
    )
    return measure_open_choices(
        plan, upcoming, request.recipe, finds_lr=request.finds_lr, auto=request.auto
    )


def build(setup: Setup, plan: Plan, phases: Sequence[Phase], auto: AutoRun | None = None) -> Run:
    """Return the run: components and optimizers as the plan says, nothing computed yet."""
    components = setup.built(plan).components(plan.values)
    settings = RunSettings(
        options=options_of(setup.training, plan.values),
        phases=tuple(phases),
        callbacks=with_default_callbacks(
            setup.callbacks, quiet=setup.quiet, writes=setup.folder is not None
        ),
        plan=plan.to_json,
        # The folder's name is fixed now, the folder is made when something is written.
        folder=agree_on_folder(setup.folder, setup.domain.name),
        data=setup.fingerprint,
        planner=auto,
    )
    components = components if auto is None else auto.cut(components)
    run = make_run(components, settings, setup.history, setup.position)
    run.set_bn_policy(plan.values["bn"])
    return run


def examine(setup: Setup, plan: Plan, run: Run) -> None:
    """Warn of what the doctor finds before a learner's first fit."""
    if setup.examines:
        from flambeau.doctor import warn_before_fit
        from flambeau.learner.examine import training_setup

        checked = training_setup(setup, plan, run)
        run_on_main(lambda: warn_before_fit(checked, setup.domain.checks))


def train(setup: Setup, plan: Plan, run: Run, auto: AutoRun | None = None) -> None:
    """Run all phases from the run's position on; ``auto`` also fixes the model's draws."""
    draws = nullcontext() if auto is None else auto.draws(setup.seed)
    with draws, num_threads(plan.values["num_threads"]), run.propagate_errors():
        run_phases(run)


def record(plan: Plan, run: Run, auto: AutoRun | None) -> Plan:
    """Return the plan with the outcome of a run that planned itself, so that it can be repeated."""
    return plan if auto is None else auto.recorded(plan, run.state.history, run.best.epoch)


def _is_open(plan: Plan, phases: Sequence[Phase], request: Request) -> bool:
    """Whether anything may have to be measured, without loading what measures."""
    values = plan.values
    bn_is_open = values["bn"] == "auto" and any(phase.bn == "auto" for phase in phases)
    lr_is_unsure = request.finds_lr and plan["lr"].source == "rule" and plan["lr"].confidence < 0.5
    return values["probe"] in TO_MEASURE or bn_is_open or lr_is_unsure


def _silent(line: str) -> None:
    """Show nothing."""
