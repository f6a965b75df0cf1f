"""Restore a run from the tree of a checkpoint; after an error the run is unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from flambeau.errors import ArtefactError, FlambeauError
from flambeau.global_rng import generator_states, restore_generators
from flambeau.phases.phase import Phase
from flambeau.task.task_module import task_module
from flambeau.training.run_state.checkpoint_content import restore
from flambeau.training.run_state.module_state import copied_state, load_state
from flambeau.training.state import Position
from flambeau.wording import type_and_first_line

if TYPE_CHECKING:
    from flambeau.training.run import Run

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "plan": dict,
    "phases": (list, type(None)),
    "fingerprint": dict,
    "position": dict,
    "model": dict,
    "unlisted": dict,
    "task": dict,
    "task_parameters": dict,
    "optimizers": dict,
    "values": dict,
    "controlled": dict,
    "history": dict,
    "callbacks": list,
    "generators": dict,
}


def check_tree(tree: object, checkpoint: object) -> Mapping[str, Any]:
    """Return the tree after checking that it has all parts of a run.

    Args:
        tree: The content of a checkpoint.
        checkpoint: The path of the checkpoint, for the message.

    Raises:
        ArtefactError: A part is missing or has another type.
    """
    if not isinstance(tree, dict):
        raise ArtefactError(
            f"{checkpoint} contains a {type(tree).__name__}, not a run. Use another checkpoint."
        )
    parts = cast("dict[str, Any]", tree)
    for name, kind in _KINDS.items():
        if name not in parts or not isinstance(parts[name], kind):
            found = type(parts[name]).__name__ if name in parts else "missing"
            raise ArtefactError(
                f"{checkpoint} is incomplete: its {name!r} is {found}. It is damaged or was not "
                "written by Learner.fit. Use an older checkpoint."
            )
    position = cast("dict[str, object]", parts["position"])
    names = {field.name for field in fields(Position)}
    if position.keys() != names or any(
        type(value) is not int or value < 0 for value in position.values()
    ):
        raise ArtefactError(
            f"{checkpoint} is damaged: its 'position' is {position!r:.80}, not a count for each of "
            f"{', '.join(sorted(names))}. Use an older checkpoint."
        )
    return parts


def read_phases(tree: Mapping[str, Any], checkpoint: object) -> list[Phase]:
    """Return the phases of the run to continue.

    Raises:
        ArtefactError: The phases are invalid.
    """
    try:
        phases = [Phase.from_json(phase) for phase in tree["phases"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(
            f"The phases in {checkpoint} are invalid: {type_and_first_line(error)}. "
            "Use an older checkpoint."
        ) from error
    position = Position(**tree["position"])
    if not phases or position.phase > len(phases):
        raise ArtefactError(
            f"{checkpoint} is damaged: its position is phase {position.phase + 1} of "
            f"{len(phases)}. Use an older checkpoint."
        )
    return phases


def restore_or_roll_back(run: Run, tree: Mapping[str, Any]) -> None:
    """Load the tree into the run; after an error restore model, history and callbacks.

    Raises:
        ResumeError: Model, data or settings differ from those in the tree.
        ArtefactError: A part of the tree does not fit the run.
    """
    state = run.state
    stateful = [state.model, state.task, task_module(state.task)]
    before = [(each, copied_state(each)) for each in stateful if each is not None]
    history = state.history.state_dict()
    objects = deepcopy(run.objects.state_dict())
    callbacks = [(each, deepcopy(each.state_dict())) for each in run.settings.callbacks]
    generators = generator_states()
    try:
        restore(run, tree)
    except Exception as error:
        for each, values in before:
            load_state(each, values)
        run.objects.load_state_dict(objects)
        state.history.load_state_dict(history)
        for callback, values in callbacks:
            callback.load_state_dict(values)
        restore_generators(generators)
        run.release()
        if isinstance(error, FlambeauError):
            raise
        raise ArtefactError(
            f"The checkpoint does not fit this run: {type_and_first_line(error)}. It is damaged, "
            "or from another release. Use an older checkpoint; the run was not changed."
        ) from error
