"""Save the complete state of a run as a tree of plain values and tensors, and restore it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from flambeau.data.loader import has_length, not_resumable_reason, steps_in
from flambeau.distributed import processes
from flambeau.errors import FlambeauWarning, ResumeError
from flambeau.global_rng import generator_states, restore_generators
from flambeau.phases.phase import not_savable_reason
from flambeau.task.task_module import task_module
from flambeau.training.optim.fused_step import with_inner
from flambeau.training.run_state.module_state import complete_state, load_state
from flambeau.training.run_state.optimizer_state import (
    load_state_by_name,
    parameter_names,
    state_by_name,
)
from flambeau.training.state import Position

if TYPE_CHECKING:
    from flambeau.training.components import Components
    from flambeau.training.options import TrainingOptions
    from flambeau.training.run import Run
    from flambeau.training.run_state.object_state import ObjectStates


def capture(run: Run) -> dict[str, Any]:
    """Return the complete state of the run as a tree; call it between two steps.

    Tensors are not copied: save the tree before the next step.
    """
    state = run.state
    phases = list(state.phases)
    names, model = parameter_names(state.model, state.task), complete_state(state.model)
    parameters = task_module(state.task)
    savable = not not_savable_reason(phases)
    objects = run.objects.state_dict()
    if run.objects.not_savable and not state.not_resumable_reason:
        state.not_resumable_reason = not_savable_objects(run.objects.not_savable)
    return {
        "plan": dict(run.settings.plan()),
        "phases": [phase.as_json() for phase in phases] if savable else None,
        "fingerprint": _fingerprint(run),
        "meaning": run.settings.meaning and run.settings.meaning.settings(),
        "position": asdict(state.position),
        "started_phase": run.started_phase,
        "first_epoch": None if state.intervals is None else state.intervals.first_epoch,
        "model": model.pop("state_dict"),
        "unlisted": model,
        "task": complete_state(state.task),
        "task_parameters": {} if parameters is None else dict(parameters.state_dict()),
        "optimizers": {
            name: state_by_name(optimizer, names) for name, optimizer in run.optimizers.items()
        },
        "average": run.average.state_dict() if run.average is not None else None,
        "adapted": run.adapted,
        "best": run.best.state_dict(),
        "precision": run.precision.state_dict(),
        "values": dict(state.values),
        "controlled": dict(run.values.controlled),
        "history": state.history.state_dict(),
        "losses": run.losses.state_dict(),
        "skipped_updates": run.update.skipped(),
        "logged": run.logged.state_dict(),
        "carries": run.carries(),
        "callbacks": [
            {"type": type(callback).__name__, "state": callback.state_dict()}
            for callback in run.settings.callbacks
        ],
        "objects": objects,
        "not_savable": run.objects.not_savable,
        "generators": generator_states(),
        "planner": run.settings.planner and run.settings.planner.state_dict(),
    }


def restore(run: Run, tree: Mapping[str, Any]) -> None:
    """Load a captured tree into a run that was built in the same way.

    Raises:
        ResumeError: Model, data or settings differ from those in the tree.
    """
    _check(run, tree)
    state = run.state
    position = Position(**tree["position"])
    why_not = not_resumable_reason(run.components.train)
    if why_not and (position.epoch or position.epoch_step):
        raise ResumeError(
            f"The run cannot continue with the same train batches: {why_not} learner.load(path) "
            "loads the weights of its checkpoint."
        )
    if tree.get("not_savable"):
        raise ResumeError(
            f"The run cannot continue: {not_savable_objects(tree['not_savable'])} "
            "learner.load(path) loads the weights of its checkpoint."
        )
    load_state(state.model, {"state_dict": tree["model"], **tree["unlisted"]})
    load_state(state.task, tree["task"])
    parameters = task_module(state.task)
    if parameters is not None:
        parameters.load_state_dict(tree["task_parameters"])
    run.objects.load_state_dict(tree.get("objects", {}))
    run.adapted = bool(tree.get("adapted", False))
    run.update.save_statistics()
    # Before the phases: whether weight decay is controlled decides how parameters are grouped.
    run.values.controlled.update(tree["controlled"])
    started = min(int(tree.get("started_phase", position.phase)), len(state.phases) - 1)
    state.position.phase = max(started, 0)
    # The steps of a phase may depend on its first epoch.
    state.position.epoch, state.position.phase_epoch = position.epoch, position.phase_epoch
    if started >= 0:  # -1 during on_fit_start
        run.start_phase()
    names = parameter_names(state.model, state.task)
    for name, optimizer in run.optimizers.items():
        load_state_by_name(optimizer, tree["optimizers"][name], names)
    if started >= 0:
        run.start_phase()  # again, because loading has replaced the param groups
    if run.average is not None:
        run.average.load_state_dict(tree["average"])
    run.best.load_state_dict(tree["best"])
    run.precision.load_state_dict(tree["precision"])
    state.values.update(tree["values"])
    state.history.load_state_dict(tree["history"])
    run.losses.load_state_dict(tree["losses"])
    run.update.load_skipped(tree.get("skipped_updates", (0, 0)))
    run.logged.load_state_dict(tree.get("logged", ()))
    state.context.carry = _own_carry(tree)
    for name, value in asdict(position).items():
        setattr(state.position, name, value)
    _restore_callbacks(run, tree["callbacks"])
    restore_generators(tree["generators"])


def _own_carry(tree: Mapping[str, Any]) -> Any:
    """Return the carried state of this rank, which has its own part of each batch.

    Warns:
        FlambeauWarning: [carry-lost] The state of this rank is not in the tree.
    """
    # Older checkpoints have the state of rank 0 alone.
    carries: list[Any] = tree["carries"] if "carries" in tree else [tree["carry"]]
    group = processes.current()
    rank, world_size = (0, 1) if group is None else (group.rank, group.world_size)
    if len(carries) == world_size:
        return carries[rank]
    if carries[0] is not None and not rank:
        warnings.warn(
            f"[carry-lost] The checkpoint has the carried state of {len(carries)} ranks, but the "
            f"run has {world_size}, so the next batch begins without one, and the results differ "
            "slightly from those of a run that was not interrupted. Resume on as many ranks.",
            FlambeauWarning,
            stacklevel=2,
        )
    return None


def states_of_objects(run: Run) -> ObjectStates:
    """Return the states of the objects that a user passed, and of attributes of the model."""
    objects = {
        "model": run.components.model,
        "task": run.components.task,
        **user_objects(run.components, run.options),
        **{f"optimizers[{name!r}]": each for name, each in run.optimizers.items()},
    }
    from flambeau.training.run_state.object_state import ObjectStates

    return ObjectStates(
        objects,
        known=(*run.trained.parameters(), *run.components.model.buffers()),
        by_parts=[each for made in run.optimizers.values() for each in with_inner(made)],
    )


def user_objects(components: Components, options: TrainingOptions) -> dict[str, object]:
    """Return the objects besides model, task and optimizers that may have state, by name."""
    return {
        "train_step": options.train_step,
        **{f"controllers[{i}]": each for i, each in enumerate(options.controllers)},
        **{f"transforms[{i}]": each for i, each in enumerate(options.transforms)},
        **{f"augment[{i}]": each for i, each in enumerate(components.augment)},
        "on_device": components.on_device,
    }


def not_savable_objects(found: Sequence[str]) -> str:
    """Return why a run cannot be resumed whose objects have a state that cannot be saved."""
    return (
        f"{'; '.join(found[:3])}, whose position cannot be saved. Use a counter or a random "
        "generator in its place, which checkpoints contain."
    )


def _fingerprint(run: Run) -> dict[str, Any]:
    """Return the settings that must not change if a resumed run is to make the same steps."""
    train = run.components.train
    return {
        "parameters and buffers": {
            name: list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            for name, value in run.state.model.state_dict().items()
        },
        "requires_grad": {
            name: id(parameter) not in run.frozen_by_user
            for name, parameter in run.state.model.named_parameters()
        },
        "optimizers": {name: type(opt).__name__ for name, opt in run.optimizers.items()},
        "seed": run.state.seed,
        "batches in an epoch": steps_in(train, 0) if has_length(train) else None,
        "accumulate": run.options.accumulate,
        "averaging": repr(run.options.average),
        "clip_norm": run.options.clip_norm,
        "precision": run.components.values.get("precision"),
        "data": dict(run.settings.data),
    }


def _check(run: Run, tree: Mapping[str, Any]) -> None:
    mine, theirs = _fingerprint(run), cast("dict[str, Any]", tree["fingerprint"])
    theirs.setdefault("data", mine["data"])  # earlier releases did not write it
    for name, value in mine.items():
        if theirs.get(name) != value:
            here, there = _difference(value, theirs.get(name))
            raise ResumeError(
                f"The checkpoint belongs to another run: {name} is {there} in the checkpoint and "
                f"{here} in this run. Create the Learner with the same data, model, choices, "
                "training options and seed."
            )
    if run.settings.meaning is not None:
        run.settings.meaning.check_settings(tree.get("meaning") or {}, "the checkpoint")


def _difference(here: Any, there: Any) -> tuple[Any, Any]:
    """Return the first entry of two values that differs, so that the message is short."""
    if not (isinstance(here, dict) and isinstance(there, dict)):
        return cast("tuple[Any, Any]", (here, there))
    mine, theirs = cast("dict[str, Any]", here), cast("dict[str, Any]", there)
    name = next(n for n in [*mine, *theirs] if mine.get(n) != theirs.get(n))
    return f"{name}: {mine.get(name)}", f"{name}: {theirs.get(name)}"


def _restore_callbacks(run: Run, saved: list[dict[str, Any]]) -> None:
    """Load saved states into the callbacks of the same class; new callbacks keep their state."""
    remaining = list(saved)
    for callback in run.settings.callbacks:
        for entry in remaining:
            if entry["type"] == type(callback).__name__:
                callback.load_state_dict(entry["state"])
                remaining.remove(entry)
                break


def load_final_weights(model: nn.Module, tree: Mapping[str, Any]) -> None:
    """Load the weights that the run would end with at this checkpoint.

    These are the weights of the best epoch if the run keeps it, else the averaged weights if there
    are any, else the weights of the last step.

    Raises:
        RuntimeError: Names or shapes differ from the model's.
    """
    best, average = tree["best"]["weights"], tree["average"]
    load_state(model, best or {"state_dict": tree["model"], **tree["unlisted"]})
    if not best and average is not None and average["updates"]:
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        with torch.no_grad():
            for name, value in average["tensors"].items():
                named[name].copy_(value)
