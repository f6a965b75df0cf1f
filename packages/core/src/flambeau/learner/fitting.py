"""The stages of a fit, in the order in which they run.

    decide    record the method's arguments as choices of the plan
    measure   measure what the plan does not fix yet
    build     make the run from model, task, loaders and optimizers
    examine   check the loss and warn of likely mistakes, before the first fit
    train     run the phases
    record    write the result of an automatic run into the plan

Stages take and return the plan as a value; nothing here changes the learner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flambeau.callbacks import ProgressBar
from flambeau.device import num_threads
from flambeau.distributed.processes import run_on_main
from flambeau.learner.planning import (
    auto_run_of_checkpoint,
    decide,
    plan_of_checkpoint,
    unused_choices,
    within_budget,
)
from flambeau.learner.setup import Request, Resume, Setup, options_of, run_inputs
from flambeau.phases.phase import Phase
from flambeau.plan import Plan
from flambeau.plan.rules_machine import TO_MEASURE
from flambeau.training.loop import fit as run_phases
from flambeau.training.ranks.make_run import make_run
from flambeau.training.run import Run
from flambeau.training.state import Position
from flambeau.training.step import train_step

if TYPE_CHECKING:
    from flambeau.tuning.auto_run import AutoRun


Started = Callable[[Plan, Run], None]
"""Called when plan and run are complete, before the first step."""


def fit(setup: Setup, request: Request, started: Started) -> Plan:
    """Train with the settings that a training method of the learner requests.

    Args:
        setup: The learner's setup.
        request: The training that the method requests.
        started: Called before the first step, so that an interrupted fit keeps its plan.

    Returns:
        The plan with everything that was decided, measured and recorded.

    Raises:
        ArgumentError: The learner's folder contains the run of another learner.
    """
    check_folder(setup)
    plan = decide(setup.plan, request.choices)
    if request.auto is not None:
        plan = within_budget(setup, plan, request.auto)
    if setup.training.factory is not None:
        from flambeau.learner.factory_rate import check_peaks, with_factory_rate

        plan = with_factory_rate(setup, plan, request.choices.get("lr"))
        check_peaks(plan, request)
    plan, phases = measure(setup, plan, request)
    run = build(setup, plan, phases, request.auto, setup.position.epoch)
    examine(setup, plan, run)
    started(plan, run)
    train(setup, plan, run, request.auto)
    return record(plan, run, request.auto)


def resume(setup: Setup, resume: Resume, started: Started) -> Plan:
    """Continue an interrupted run; its checkpoint contains all decisions and measurements.

    Args:
        setup: The learner's setup.
        resume: The run to continue.
        started: As for ``fit``.

    Raises:
        ResumeError: The checkpoint belongs to another model, other data or another plan.
        ArtefactError: The checkpoint is damaged, or a part of it does not fit the run.
        ArgumentError: The learner's folder contains another run.
    """
    from flambeau.learner.run_folder import agree_on_checkpoint
    from flambeau.training.run_state.resume import check_tree, read_phases, restore_or_roll_back

    folder, checkpoint, tree = agree_on_checkpoint(resume.path)
    tree = check_tree(tree, checkpoint)
    plan = plan_of_checkpoint(
        tree,
        setup.plan,
        setup.domain,
        setup.data,
        checkpoint,
        user_keys=resume.user_keys,
        is_built=resume.is_built,
        training=setup.training,
    )
    unused = unused_choices(plan, setup.plan, resume.user_keys)
    if unused and not setup.quiet:
        ProgressBar.write_line(unused)
    phases, auto = read_phases(tree, checkpoint), auto_run_of_checkpoint(tree)
    setup = replace(setup, plan=plan, position=Position(), folder=setup.folder or folder)
    check_folder(setup, continued=folder)
    run = build(setup, plan, phases, auto, tree.get("first_epoch") or 0)
    restore_or_roll_back(run, tree)
    started(plan, run)
    train(setup, plan, run)
    return record(plan, run, auto)


# ---------------------------------------------------------------- the stages


def check_folder(setup: Setup, continued: Path | None = None) -> None:
    """Refuse a folder that contains a run, unless it is this learner's or the continued one.

    Raises:
        ArgumentError: The folder contains another run, which would be overwritten.
    """
    folder = setup.folder
    if folder is None:
        return
    from flambeau.learner.run_folder import check_unused

    own = [each.resolve() for each in (setup.own_folder, continued) if each is not None]
    if folder.resolve() not in own:
        run_on_main(lambda: check_unused(folder))


def measure(setup: Setup, plan: Plan, request: Request) -> tuple[Plan, Sequence[Phase]]:
    """Return the plan with every required measurement, and the phases of the run."""
    phases = request.recipe(plan.values)
    if request.auto is None and not _may_need_measuring(plan, phases, request):
        return plan, phases
    from flambeau.tuning.measure import measure as run_measurements
    from flambeau.tuning.upcoming import UpcomingRun

    built = setup.built(plan)
    upcoming = UpcomingRun(
        components=lambda plan: built.components(plan.values),
        options=lambda plan: options_of(
            setup.training, plan.values, setup.callbacks, automatic=request.auto is not None
        ),
        position=setup.position,
        facts=setup.data.facts(),
        samples=built.sample_batch,
        callbacks=setup.callbacks,
        log=(lambda line: None) if setup.quiet else ProgressBar.write_line,
    )
    return run_measurements(
        plan, upcoming, request.recipe, may_find_lr=request.may_find_lr, auto=request.auto
    )


def build(
    setup: Setup,
    plan: Plan,
    phases: Sequence[Phase],
    auto: AutoRun | None = None,
    first_epoch: int = 0,
) -> Run:
    """Return the run with the plan's components and optimizers, before its first step.

    Raises:
        InputError: The train loader has no length, and a phase is measured in epochs.
    """
    components, settings = run_inputs(setup, plan, phases, auto, first_epoch)
    run = make_run(components, settings, setup.history, setup.position)
    run.set_bn_policy(plan.values["bn"])
    return run


def examine(setup: Setup, plan: Plan, run: Run) -> None:
    """Check the task's loss and warn of likely mistakes, before a learner's first fit.

    Raises:
        InputError: ``task.loss`` does not return a sum and its weight, or ``task.host_weight``
            returns another weight.
    """
    is_default = run.options.train_step is train_step
    checks_loss = setup.position.step == 0 and (is_default or run.components.valid is not None)
    from flambeau.training.loss_check import needs_check, scores_by_loss

    task = run.components.task
    checks_loss = checks_loss and needs_check(task) and (is_default or scores_by_loss(task))
    if not (checks_loss or setup.examines):
        return
    from flambeau.learner.examine import check_task_loss, training_setup

    checked = training_setup(setup, plan, run)
    if checks_loss:
        run_on_main(lambda: check_task_loss(checked))
    if setup.examines:
        from flambeau.doctor import warn_before_fit

        run_on_main(lambda: warn_before_fit(checked, setup.domain.checks))


def train(setup: Setup, plan: Plan, run: Run, auto: AutoRun | None = None) -> None:
    """Run the remaining phases; for an automatic run, the model's random draws are seeded, too."""
    setup.built(plan).set_calibration({}, quiet=setup.quiet)
    seeded = nullcontext() if auto is None else auto.fixed_seed(setup.seed)
    with seeded, num_threads(plan.values["num_threads"]), run.propagate_errors():
        run_phases(run)


def record(plan: Plan, run: Run, auto: AutoRun | None) -> Plan:
    """Return the plan with the result of an automatic run, so that it can be repeated."""
    return plan if auto is None else auto.record_in(plan, run.state.history, run.best.epoch)


def _may_need_measuring(plan: Plan, phases: Sequence[Phase], request: Request) -> bool:
    """Return whether a measurement may be needed, without importing the modules that measure."""
    values, lr = plan.values, plan["lr"]
    needs_bn = values["bn"] == "auto" and any(phase.bn == "auto" for phase in phases)
    needs_lr = request.may_find_lr and lr.source == "rule" and lr.confidence < 0.5
    return values["probe"] in TO_MEASURE or needs_bn or needs_lr
