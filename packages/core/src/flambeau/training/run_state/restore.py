"""A checkpoint's tree put back whole or not at all: one that does not fit leaves all as it was."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from flambeau.errors import ArtefactError, FlambeauError
from flambeau.global_rng import generator_states, restore_generators
from flambeau.phases.phase import Phase
from flambeau.training.run_state.snapshot import restore
from flambeau.training.state import Position

if TYPE_CHECKING:
    from flambeau.training.run import Run

_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "plan": dict,
    "phases": (list, type(None)),
    "fingerprint": dict,
    "position": dict,
    "model": dict,
    "optimizers": dict,
    "values": dict,
    "controlled": dict,
    "history": dict,
    "callbacks": list,
    "generators": dict,
}


def check_tree(tree: object, checkpoint: object) -> Mapping[str, Any]:
    """The tree, which has every part of a run.

    Args:
        tree: What a checkpoint holds.
        checkpoint: Where it is from, for the message.

    Raises:
        ArtefactError: A part is missing or is something else.
    """
    if not isinstance(tree, dict):
        raise ArtefactError(f"{checkpoint} holds a {type(tree).__name__}, not a run.")
    parts = cast("dict[str, Any]", tree)
    for name, kind in _KINDS.items():
        if name not in parts or not isinstance(parts[name], kind):
            found = type(parts[name]).__name__ if name in parts else "missing"
            raise ArtefactError(
                f"{checkpoint} holds no whole run: its {name!r} is {found}. It is damaged or was "
                "not written by Learner.fit. Take an older checkpoint."
            )
    position = cast("dict[str, object]", parts["position"])
    names = {field.name for field in fields(Position)}
    if position.keys() != names or any(
        type(value) is not int or value < 0 for value in position.values()
    ):
        raise ArtefactError(
            f"{checkpoint} holds no whole run: its 'position' is {position!r:.80}, not a count for "
            f"each of {', '.join(sorted(names))}. Take an older checkpoint."
        )
    return parts


def phases_of(tree: Mapping[str, Any], checkpoint: object) -> list[Phase]:
    """The phases of the run that is continued.

    Raises:
        ArtefactError: They are damaged.
    """
    try:
        phases = [Phase.from_json(phase) for phase in tree["phases"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{checkpoint} has phases that are none: {_words(error)}.") from error
    position = Position(**tree["position"])
    if not phases or position.phase > len(phases):
        raise ArtefactError(
            f"{checkpoint} stands in phase {position.phase + 1} of {len(phases)}: it is damaged. "
            "Take an older checkpoint."
        )
    return phases


def restore_whole(run: Run, tree: Mapping[str, Any]) -> None:
    """Puts the tree into the run; where that fails, model, history and callbacks are as before.

    Raises:
        ResumeError: Model, data or settings are not those of the tree.
        ArtefactError: A part of the tree does not fit the run.
    """
    state = run.state
    weights = {name: value.clone() for name, value in state.model.state_dict().items()}
    rows, losses = list(state.history.rows), list(state.history.step_losses)
    callbacks = [(each, deepcopy(each.state_dict())) for each in run.settings.callbacks]
    generators = generator_states()
    try:
        restore(run, tree)
    except Exception as error:
        state.model.load_state_dict(weights)
        state.history.rows[:] = rows
        del state.history.step_losses[:]
        state.history.step_losses.extend(losses)
        for callback, values in callbacks:
            callback.load_state_dict(values)
        restore_generators(generators)
        run.release()
        if isinstance(error, FlambeauError):
            raise
        raise ArtefactError(
            f"The checkpoint does not fit this run: {_words(error)}. It is damaged, or from "
            "another release. Take an older checkpoint; nothing was changed."
        ) from error


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no words'}"
