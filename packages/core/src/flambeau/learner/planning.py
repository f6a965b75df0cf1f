"""The plan of a learner: derived from rules, read from a saved plan, or from a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from flambeau.checked_arguments import as_plain, checked_seed
from flambeau.data.data import Data
from flambeau.data.split import PARTS
from flambeau.distributed import processes
from flambeau.distributed.processes import ProcessGroup
from flambeau.domain import Domain, rules_of
from flambeau.errors import ArgumentError, ArtefactError, InputError, ResumeError, did_you_mean
from flambeau.learner.build import (
    BuiltPlan,
    UserObjects,
    builder_of,
    model_facts,
    require_builder,
    task_facts,
)
from flambeau.learner.setup import SHARED, options_of
from flambeau.plan import Plan
from flambeau.plan.choice import Choice
from flambeau.plan.core_rules import CORE_RULES
from flambeau.plan.rule import Changes, Rule
from flambeau.plan.rules_machine import TO_MEASURE
from flambeau.training.events import Callback
from flambeau.training.optim.groups import trainable_groups
from flambeau.training.options import TrainingOptions

if TYPE_CHECKING:
    from flambeau.learner.setup import Setup
    from flambeau.learner.start import Start
    from flambeau.training.components import Components
    from flambeau.tuning.auto_run import AutoRun

# Facts that may differ between machines with the same data.
_MACHINE_FACTS = ("evidence", "in_memory", "memory_bytes")


def check_choice_is_name(key: str, value: object) -> None:
    """Check that ``choices`` give a loss or metrics by name.

    Raises:
        ArgumentError: The value is or contains an object, which must be passed to the task.
    """
    values: list[object] = list(cast("Any", value)) if isinstance(value, list | tuple) else [value]
    if isinstance(value, Mapping):
        values = list(cast("Mapping[str, object]", value).values())
    odd = next((each for each in values if callable(each) or hasattr(each, "update")), None)
    if odd is None:
        return
    shown = odd.__name__ if isinstance(odd, type) else type(odd).__name__
    example = {"loss": 'loss=nn.HuberLoss(reduction="none")', "metrics": 'metrics={"recall": …}'}
    raise ArgumentError(
        f"choices={{{key!r}: …}} takes names, not {shown}, because a plan is saved as JSON. "
        "Pass objects and functions to the task: Learner(data, model, "
        f"task=Classification(names, {key}=…)), or Regression(names, {example[key]})."
    )


def argument_hint(name: str) -> str:
    """Return where a setting belongs that is no argument of the learner or of its methods."""
    keys = [rule.key for rule in CORE_RULES]
    fixes: list[str] = []
    key = did_you_mean(name, keys)
    if name in keys or key.startswith("Did"):
        found = name if name in keys else key.split("'")[1]
        fixes.append(f'Learner(data, choices={{"{found}": …}})')
    if name in TrainingOptions.__dataclass_fields__:
        fixes.append(f"Learner(data, training=TrainingOptions({name}=…))")
    if name in ("loss", "metrics"):
        fixes.append(f"Learner(data, task=Classification(names, {name}=…))")
    return f"Set it with {', or '.join(fixes)}." if fixes else ""


def check_arguments(
    data: object,
    seed: object,
    callbacks: object,
    choices: object,
    plan: object,
    training: object,
) -> None:
    """Check the types of the learner's arguments.

    Raises:
        ArgumentError: An argument has the wrong type; the message says what to pass.
    """
    if not isinstance(data, Data):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        raise ArgumentError(
            f"Learner needs a Data object, not {type(data).__name__}. Build one with a "
            "domain's data class (ImageData.from_folder), or with TensorData.from_tensors, "
            "from_datasets or from_loaders."
        )
    checked_seed(seed)
    if isinstance(callbacks, Callback):
        raise ArgumentError(
            f"callbacks is one callback; give a list: callbacks=[{type(callbacks).__name__}(…)]."
        )
    if not (choices is None or isinstance(choices, Mapping)):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        raise ArgumentError(f'choices is {choices!r:.60}; give a dict: {{"batch_size": 64}}.')
    for key in ("loss", "metrics"):
        check_choice_is_name(key, cast("Mapping[str, object]", choices or {}).get(key))
    if not (plan is None or isinstance(plan, Plan | str | Path)):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        raise ArgumentError(f"plan is a {type(plan).__name__}; give a Plan or a file's path.")
    if not (training is None or isinstance(training, TrainingOptions)):
        raise ArgumentError(
            f"training is {training!r:.60}; give TrainingOptions(optimizer=…, clip_norm=…)."
        )


def make_plan(
    data: Data,
    domain: Domain,
    model: nn.Module | str | None,
    given: UserObjects,
    choices: Mapping[str, Any],
    saved: Plan | str | Path | None,
    training: TrainingOptions,
    start: str | Path | Start | None = None,
) -> Plan:
    """Return the plan of a new learner: derived from rules, or ``saved`` with the new arguments.

    Args:
        data: The data, which provide facts and choices.
        domain: The domain, which provides rules and builders in addition to core's.
        model: The learner's argument ``model``.
        given: Model and task that were passed as objects.
        choices: Values by key that take precedence over the rules and over ``saved``.
        saved: A plan to replay, or the path of its file.
        training: The training options; with an optimizer factory, any optimizer name is valid.
        start: An export whose preprocessor and weights the learner starts with.

    Raises:
        ArtefactError: The export of ``start`` or of the saved plan cannot be read or does not fit
            the data.
        PlanError: A choice is unknown, or names a builder that the domain does not have.
    """
    facts = dict(data.facts())
    _check_one_length(choices)
    user = {**data.choices, **choices}
    if isinstance(model, nn.Module):
        facts |= model_facts(model)
        user["architecture"] = builder_of(model, domain) or type(model).__name__
    elif model is not None:
        user["architecture"] = model
    if given.task is not None:
        facts["task_given"] = task_facts(given.task)
        user["task"] = given.task.builder or type(given.task).__name__
    rules = rules_for(domain, training)
    if start is not None:
        if saved is not None:
            raise ArgumentError("plan= and start= exclude each other: a plan contains its start.")
        from flambeau.learner.start import plan_from_export

        plan = plan_from_export(start, data, domain, rules, facts, user, given.task)
    elif saved is None and data.like is not None:
        from flambeau.learner.start import plan_like_export

        plan = plan_like_export(data.like, domain, rules, facts, user)
    elif saved is None:
        plan = Plan.derive(rules, facts, user)
    else:
        plan = saved if isinstance(saved, Plan) else Plan.load(saved)
        plan = plan.bind(rules, facts | _start_facts(plan.values.get("start")))
        # Arguments take precedence over saved values; the choices of the data are saved already.
        given_here = ("architecture", "task", *choices)
        plan = decide(plan, {key: user[key] for key in given_here if key in user})
        if data.like is not None:
            from flambeau.learner.start import check_plan_like

            check_plan_like(plan.values, data.like, domain)
        if plan.values.get("start") is not None:
            from flambeau.learner.start import check_replayed

            check_replayed(plan, data, domain, given.task)
    if training.optimizer is not None and plan["optimizer"].source != "user":
        plan = plan.with_choice(_factory_choice(training.optimizer))
    if given.model is not None:
        trainable_groups(plan.values["trainable"], given.model)  # refuses unknown groups
    if plan.values.get("strict"):
        plan.require_confidence()
    if given.model is None:
        require_builder("architecture", plan.values, domain.models, domain)
    if given.task is None:
        require_builder("task", plan.values, domain.tasks, domain)
    return agree_on_plan(plan, data)


def _start_facts(start: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"started": start is not None and start["model"] is not None}


def decide(plan: Plan, choices: Mapping[str, Any]) -> Plan:
    """Return the plan with the user's values; given epochs replace steps, and the reverse.

    Raises:
        ArgumentError: Both epochs and steps are given.
        PlanError: A key is unknown, or a value is invalid for its key.
    """
    _check_one_length(choices)
    if choices.get("epochs") is not None and plan["steps"].value is not None:
        plan = plan.override("steps", plan.rules["steps"].decide({}, {}))
    if choices.get("steps") is not None:
        # No longer the user's: they follow the steps.
        plan = plan.with_choice(replace(plan["epochs"], source="rule"))
    for key, given in choices.items():
        value = as_plain(given)
        # Arrays cannot be compared as a whole, and are refused by the plan.
        if isinstance(value, np.ndarray | torch.Tensor) or value != plan[key].value:
            plan = plan.override(key, value)
    return plan


def _check_one_length(choices: Mapping[str, Any]) -> None:
    epochs, steps = choices.get("epochs"), choices.get("steps")
    if epochs is not None and steps is not None:
        raise ArgumentError(
            f"epochs is {epochs!r} and steps is {steps!r}: a run has one length. Give one of them, "
            "fit(3) for epochs or fit(steps=10_000) for optimizer steps."
        )


def within_budget(setup: Setup, plan: Plan, auto: AutoRun) -> Plan:
    """Return the plan with values that use the time budget of ``auto``."""
    given = setup.changeable
    if auto.budget_s is None or given is None or given.model is not None:
        return plan
    from flambeau.tuning.budget_choice import choose_within_budget

    def components(data: Data, plan: Plan) -> Components:
        return BuiltPlan(data, setup.domain, plan, given, setup.seed).components()

    options = options_of(setup.training, plan.values)
    return choose_within_budget(plan, auto, setup.data, options, components)


def rules_for(domain: Domain, training: TrainingOptions) -> tuple[Rule, ...]:
    """Return core's and the domain's rules; an optimizer factory allows any optimizer name."""
    rules = rules_of(domain)
    if training.optimizer is None:
        return rules
    from flambeau.training.optim.optimizer_class import OPTIMIZER_KEYS, ClassFactory

    own = not isinstance(training.optimizer, ClassFactory)  # the factory may use any setting
    rules = tuple(replace(rule, type=None) if rule.key == "optimizer" else rule for rule in rules)
    return tuple(
        replace(rule, accepts=None) if own and rule.key in OPTIMIZER_KEYS else rule
        for rule in rules
    )


def _factory_choice(factory: object) -> Choice:
    name = getattr(factory, "__name__", type(factory).__name__)
    return Choice(
        "optimizer",
        "custom",
        f"TrainingOptions(optimizer={name}) builds the optimizers.",
        override="Omit optimizer= in TrainingOptions.",
        source="user",
    )


def with_options(choices: Mapping[str, Any], training: TrainingOptions) -> Mapping[str, Any]:
    """Return the user's choices, with those that the options set.

    These are the optimizer's class and the keys of `SHARED`.

    Raises:
        ArgumentError: Choices and training options have different values.
    """
    name = None if training.optimizer is None else _name_of_class(training)
    if name is not None:
        if choices.get("optimizer", name) != name:
            raise ArgumentError(
                f"optimizer is {choices['optimizer']!r} in choices and {name!r} in "
                "TrainingOptions. Set only one of them."
            )
        choices = {**choices, "optimizer": name}
    unset = TrainingOptions()
    for key in SHARED:
        value = getattr(training, key)
        if value == getattr(unset, key):
            continue
        if choices.get(key, value) != value:
            raise ArgumentError(
                f"{key} is {choices[key]!r} in choices and {value!r} in TrainingOptions. Set only "
                "one of them."
            )
        choices = {**choices, key: value}
    return choices


def _name_of_class(training: TrainingOptions) -> str | None:
    """Return the plan's name for an optimizer class; None for another factory."""
    from flambeau.training.optim.optimizer_class import ClassFactory

    factory = training.optimizer
    return factory.name if isinstance(factory, ClassFactory) else None


def plan_of_checkpoint(
    tree: Mapping[str, Any],
    current: Plan,
    domain: Domain,
    data: Data,
    checkpoint: Path,
    *,
    user_keys: Collection[str],
    is_built: bool,
    training: TrainingOptions,
) -> Plan:
    """Return the plan with which an interrupted run continues, bound to rules and facts.

    Args:
        tree: The checkpoint's content.
        current: The learner's plan.
        domain: Provides rules in addition to core's.
        data: Provides the facts that rules read.
        checkpoint: Path, for messages.
        user_keys: Keys of the choices that the user passed to the learner.
        is_built: Whether the learner's objects are built, so that they cannot change.
        training: The training options.

    Raises:
        ResumeError: The learner's model or a choice of the user differs from the run's, or the
            schedule of the run could not be saved.
        PlanError: A value is invalid for its key.
    """
    saved = Plan.from_json(tree["plan"]).bind(rules_for(domain, training), data.facts())
    plan = _continued_plan(saved, current, checkpoint, user_keys=user_keys, is_built=is_built)
    if tree["phases"] is None:
        raise ResumeError(
            f"The run of {checkpoint} has a schedule that is a function, which cannot be saved, so "
            "it cannot be resumed. Use the name of a schedule in flambeau.phases.SHAPES. "
            f"learner.load({str(checkpoint)!r}) loads its weights."
        )
    return plan


def _decided_by_fit(key: str, value: Any) -> bool:
    """Whether a fit replaces the value, so that checkpoint and learner may differ in it."""
    return (key == "bn" and value == "auto") or (key == "probe" and value in TO_MEASURE)


def _continued_plan(
    saved: Plan, current: Plan, checkpoint: Path, *, user_keys: Collection[str], is_built: bool
) -> Plan:
    """Return the plan of a resumed run: the checkpoint's, with this machine's settings.

    Args:
        saved: The checkpoint's plan, bound to the rules.
        current: The learner's plan.
        checkpoint: Path, for messages.
        user_keys: Keys of the choices that the user passed to the learner.
        is_built: Whether the learner's objects are built, so that they cannot change.

    Raises:
        ResumeError: The learner's model or a choice of the user differs from the run's.
    """
    saved = with_own_device(saved, current)
    rules = current.rules
    for key in user_keys:
        if key in rules and rules[key].of_machine:
            saved = saved.with_choice(current[key])
    if saved.values == current.values:
        return current
    before = saved.values
    if before["architecture"] != current.values["architecture"]:
        raise ResumeError(
            f"The model of {checkpoint} is {before['architecture']!r}, but this learner's is "
            f"{current.values['architecture']!r}. Create the learner with the same model."
        )
    differing = [
        key
        for key, value in current.values.items()
        if _changes(rules, key) != "fit"
        and before.get(key) != value
        and not _decided_by_fit(key, value)
    ]
    for key in differing:
        if key in user_keys:
            raise ResumeError(
                f"{key} is {current.values[key]!r} in this learner, but {before.get(key)!r} in the "
                f"run of {checkpoint}, and a resumed run keeps its settings. Remove {key} from "
                "your choices, or start a new run with fit()."
            )
    differing = [key for key in differing if _changes(rules, key) == "rebuild"]
    if differing and is_built:
        raise ResumeError(
            f"The learner's plan differs from that of {checkpoint} in {', '.join(differing)}. "
            "Resume with a new Learner(data) whose model has not been built yet."
        )
    return saved


def unused_choices(saved: Plan, current: Plan, user_keys: Collection[str]) -> str:
    """Return a message about choices of the user that a resumed run does not take; empty if none.

    These are the length and the rates of a run: ``fit(5)`` may have replaced ``epochs`` in the
    choices, so another value is no error.
    """
    differing = [
        key
        for key in sorted(user_keys)
        if key in saved and saved[key].value != current[key].value
        if not _decided_by_fit(key, current[key].value)
    ]
    if not differing:
        return ""
    kept = ", ".join(f"{key} {saved[key].value!r}" for key in differing)
    unused = ", ".join(f"{key}={current[key].value!r}" for key in differing)
    return (
        f"The resumed run keeps {kept}; {unused} in your choices is not used. To train with other "
        "values, start a new run with fit()."
    )


def _changes(rules: Mapping[str, Rule], key: str) -> Changes:
    rule = rules.get(key)
    return "rebuild" if rule is None or rule.changes is None else rule.changes


def auto_run_of_checkpoint(tree: Mapping[str, Any]) -> AutoRun | None:
    """Return the state of a ``fit_auto`` run in a checkpoint; None for any other run.

    Raises:
        ArtefactError: The state is damaged.
    """
    saved = tree.get("planner")
    if saved is None:
        return None
    from flambeau.tuning.auto_run import AutoRun

    try:
        return AutoRun.from_state(saved)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(
            f"The state of fit_auto in the checkpoint is damaged ({type(error).__name__}: "
            f"{error}). Resume from an older checkpoint."
        ) from error


def agree_on_plan(plan: Plan, data: Data) -> Plan:
    """Return the plan of rank 0 with this process's device.

    Raises:
        InputError: The processes have different data.
    """
    group = processes.initialize()
    if group is None:
        return plan
    _check_data(data, group)
    main = Plan.from_json(group.broadcast(plan.to_json()))
    for key, choice in ((key, main[key]) for key in main):
        if key != "device" and (key not in plan or plan[key] != choice):
            plan = plan.with_choice(choice)
    return plan


def with_own_device(saved: Plan, plan: Plan) -> Plan:
    """Return ``saved`` with this process's device, if both devices have the same type."""
    if processes.current() is None or "device" not in saved:
        return saved
    own, other = (torch.device(each.values["device"]) for each in (plan, saved))
    return saved.with_choice(plan["device"]) if own.type == other.type else saved


def _check_data(data: Data, group: ProcessGroup) -> None:
    measured = data.facts()
    # A loader with a DistributedSampler gives each process different samples.
    sizes = [f"n_{part}" for part in PARTS]
    known = sizes if "loader_batch_size" in measured else measured
    facts: dict[str, object] = {
        name: value
        for name, value in measured.items()
        if name in known and name not in _MACHINE_FACTS
    }
    for part in PARTS:
        rows = data.split.part(part)
        digest = hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()
        facts[f"rows of {part}"] = f"{len(rows)} rows (digest {digest})"
    for rank, other in enumerate(group.all_gather(facts)):
        for name, fact in facts.items():
            if other.get(name) != fact:
                raise InputError(
                    f"Processes {group.rank} and {rank} have different data: {name} is "
                    f"{fact!r:.80} and {other.get(name)!r:.80}. Every process "
                    "must build the same data: use the same seed, and read the same files."
                )
