"""How a learner comes to its plan: derived, replayed, or that of a run that is continued."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flambeau.data.data import Data
from flambeau.data.split import PARTS
from flambeau.distributed import processes
from flambeau.distributed.processes import ProcessGroup
from flambeau.domain import Domain, rules_of
from flambeau.errors import ArgumentError, ArtefactError, InputError, ResumeError
from flambeau.learner.build import Given, facts_of, facts_of_task, require_builder
from flambeau.plan import Plan
from flambeau.plan.rule import Changes, Rule
from flambeau.training.events import Callback
from flambeau.training.options import TrainingOptions

if TYPE_CHECKING:
    from flambeau.tuning.auto_run import AutoRun

# They may differ between machines that hold the same data.
_MACHINE_FACTS = ("evidence", "in_memory", "memory_bytes")


def check_arguments(
    data: object, seed: object, callbacks: object, choices: object, plan: object
) -> None:
    """Refuses what a learner cannot be made from, with what to write instead.

    Raises:
        ArgumentError: An argument is of another kind than it must be.
    """
    if not isinstance(data, Data):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        raise ArgumentError(
            f"Learner needs a Data object, not {type(data).__name__}. Build one with a "
            "domain's data class (ImageData.from_folder), or with TensorData.from_tensors, "
            "from_datasets or from_loaders."
        )
    if type(seed) is not int:
        raise ArgumentError(f"seed is {seed!r}, but it must be a whole number.")
    if isinstance(callbacks, Callback):
        raise ArgumentError(f"callbacks is one callback; give a list: [{callbacks!r:.60}].")
    if not (choices is None or isinstance(choices, Mapping)):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        raise ArgumentError(f'choices is {choices!r:.60}; give a dict: {{"batch_size": 64}}.')
    if not (plan is None or isinstance(plan, Plan | str | Path)):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        raise ArgumentError(f"plan is a {type(plan).__name__}; give a Plan or a file's path.")


def make_plan(
    data: Data,
    domain: Domain,
    model: nn.Module | str | None,
    given: Given,
    choices: Mapping[str, Any],
    saved: Plan | str | Path | None,
    training: TrainingOptions,
) -> Plan:
    """The plan of a new learner: from the rules, or the saved one with what is passed now.

    Args:
        data: Their facts and choices go in.
        domain: Whose rules and builders count beside core's.
        model: As passed to the learner.
        given: What was passed as objects.
        choices: Values by key that win over the rules and over ``saved``.
        saved: A plan to replay, or its file.
        training: The training options; with an optimizer of the user's own its name is free.

    Raises:
        PlanError: A choice is unknown, or names a builder that the domain does not have.
    """
    facts = dict(data.facts())
    user = {**data.choices, **choices}
    if isinstance(model, nn.Module):
        facts |= facts_of(model)
        user["architecture"] = type(model).__name__
    elif model is not None:
        user["architecture"] = model
    if given.task is not None:
        facts["task_given"] = facts_of_task(given.task)
        user["task"] = given.task.builder or type(given.task).__name__
    rules = rules_for(domain, training)
    if saved is None:
        plan = Plan.derive(rules, facts, user)
    else:
        plan = (saved if isinstance(saved, Plan) else Plan.load(saved)).bind(rules, facts)
        # What was passed now wins over what was saved; the data's own choices are in there.
        for key in ("architecture", "task", *choices):
            if key in user and user[key] != plan.values[key]:
                plan = plan.override(key, user[key])
    if plan.values.get("strict"):
        plan.require_confidence()
    if given.model is None:
        require_builder("architecture", plan.values, domain.models, domain)
    if given.task is None:
        require_builder("task", plan.values, domain.tasks, domain)
    return agree_on_plan(plan, data)


def rules_for(domain: Domain, training: TrainingOptions) -> tuple[Rule, ...]:
    """Return core's rules and the domain's; a user's optimizer factory reads its name itself."""
    rules = rules_of(domain)
    if training.optimizer is None:
        return rules
    return tuple(replace(rule, type=None) if rule.key == "optimizer" else rule for rule in rules)


def with_options(choices: Mapping[str, Any], training: TrainingOptions) -> Mapping[str, Any]:
    """The user's choices with ``TrainingOptions.accumulate`` among them.

    Raises:
        ArgumentError: It was given in both places, and differs.
    """
    count = training.accumulate
    if count == 1:
        return choices
    if choices.get("accumulate", count) != count:
        raise ArgumentError(
            f"accumulate is {choices['accumulate']!r} in choices and {count} in TrainingOptions. "
            "Give it once."
        )
    return {**choices, "accumulate": count}


def options_of(training: TrainingOptions, values: Mapping[str, Any]) -> TrainingOptions:
    """The options with the plan's ``accumulate``; one that is given there stays."""
    planned: int = values.get("accumulate", 1)
    if training.accumulate != 1 or planned == 1:
        return training
    return replace(training, accumulate=planned)


def plan_of_checkpoint(
    tree: Mapping[str, Any],
    mine: Plan,
    domain: Domain,
    data: Data,
    checkpoint: Path,
    *,
    asked: Collection[str],
    is_built: bool,
    training: TrainingOptions,
) -> Plan:
    """Return the plan with which an interrupted run continues, bound to rules and facts.

    Args:
        tree: Of the checkpoint.
        mine: The learner's plan.
        domain: Whose rules count beside core's.
        data: Whose facts the rules read.
        checkpoint: For messages.
        asked: Keys that the user gave the learner.
        is_built: Whether the learner's objects are built already, so that they cannot change.
        training: The training options.

    Raises:
        ResumeError: The learner's model or a choice given to it is not the run's, or the run
            cannot be saved as a whole.
        PlanError: A value is not valid for its key.
    """
    saved = Plan.from_json(tree["plan"]).bind(rules_for(domain, training), data.facts())
    plan = _continued_plan(saved, mine, checkpoint, asked=asked, is_built=is_built)
    if tree["phases"] is None:
        raise ResumeError(
            f"{checkpoint} was written with a schedule that is a function, which cannot be saved. "
            "Use a named shape of flambeau.phases.SHAPES."
        )
    return plan


def _is_open(key: str, value: Any) -> bool:
    """Whether a fit decides it first, so that a run's decision is no other choice."""
    return key == "bn" and value == "auto"


def _continued_plan(
    saved: Plan, mine: Plan, checkpoint: Path, *, asked: Collection[str], is_built: bool
) -> Plan:
    """The plan with which a run goes on: that of its checkpoint, on this machine.

    Args:
        saved: The checkpoint's plan, bound to the rules.
        mine: The learner's.
        checkpoint: For messages.
        asked: Keys that the user gave the learner.
        is_built: Whether the learner's parts are made already, so that they cannot change.

    Raises:
        ResumeError: The learner's model or a choice given to it is not the run's.
    """
    saved = own_device(saved, mine)
    rules = mine.rules
    for key in asked:
        if key in rules and rules[key].of_machine:
            saved = saved.with_choice(mine[key])
    if saved.values == mine.values:
        return mine
    theirs = saved.values
    if theirs["architecture"] != mine.values["architecture"]:
        raise ResumeError(
            f"{checkpoint} is of a {theirs['architecture']!r}, but this learner has a "
            f"{mine.values['architecture']!r}. Make the learner with the same model."
        )
    differing = [
        key
        for key, value in mine.values.items()
        if _changes(rules, key) != "fit" and theirs.get(key) != value and not _is_open(key, value)
    ]
    for key in differing:
        if key in asked:
            raise ResumeError(
                f"{key} was given as {mine.values[key]!r}, but {checkpoint} is of a run with "
                f"{theirs.get(key)!r}, and a run goes on as it began. Leave it out, or start a new "
                "run with fit."
            )
    differing = [key for key in differing if _changes(rules, key) == "rebuild"]
    if differing and is_built:
        raise ResumeError(
            f"The learner's plan differs from that of {checkpoint} in {', '.join(differing)}. "
            "Resume with a new Learner(data) on which nothing has run yet."
        )
    return saved


def _changes(rules: Mapping[str, Rule], key: str) -> Changes:
    rule = rules.get(key)
    return "rebuild" if rule is None or rule.changes is None else rule.changes


def auto_of_checkpoint(tree: Mapping[str, Any]) -> AutoRun | None:
    """The planner of a run of ``fit_auto`` that a checkpoint holds; None for another run.

    Raises:
        ArtefactError: It is damaged.
    """
    saved = tree.get("planner")
    if saved is None:
        return None
    from flambeau.tuning.auto_run import AutoRun

    try:
        return AutoRun.from_state(saved)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"The checkpoint's 'planner' is damaged ({type(error).__name__}: {error}). Take an "
            "older checkpoint."
        ) from error


def agree_on_plan(plan: Plan, data: Data) -> Plan:
    """The plan of process 0 with this process's own device, for data that all of them have.

    Raises:
        InputError: The processes have different data.
    """
    together = processes.initialize()
    if together is None:
        return plan
    _check_data(data, together)
    main = Plan.from_json(together.broadcast(plan.to_json()))
    for key, choice in ((key, main[key]) for key in main):
        if key != "device" and (key not in plan or plan[key] != choice):
            plan = plan.with_choice(choice)
    return plan


def own_device(saved: Plan, plan: Plan) -> Plan:
    """A plan that another process may have saved, with this one's device if it is of the kind."""
    if processes.current() is None or "device" not in saved:
        return saved
    mine, theirs = (torch.device(each.values["device"]) for each in (plan, saved))
    return saved.with_choice(plan["device"]) if mine.type == theirs.type else saved


def _check_data(data: Data, together: ProcessGroup) -> None:
    measured = data.facts()
    # A loader with a DistributedSampler shows each process other samples.
    known = ("n_train", "n_valid", "n_test") if "loader_batch_size" in measured else measured
    facts = {name: measured[name] for name in known if name not in _MACHINE_FACTS}
    for part in PARTS:
        rows = data.split.part(part)
        digest = hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()
        facts[f"rows of {part}"] = f"{len(rows)} rows (digest {digest})"
    for rank, theirs in enumerate(together.all_gather(facts)):
        for name, fact in facts.items():
            if theirs.get(name) != fact:
                raise InputError(
                    f"Processes {together.rank} and {rank} have different data: {name} is "
                    f"{fact!r:.80} here and {theirs.get(name)!r:.80} there. Each must build the "
                    "same data: seed what is drawn, and read the same files."
                )
