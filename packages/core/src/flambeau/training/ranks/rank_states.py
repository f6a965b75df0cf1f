"""The state of callbacks and user-defined objects on each rank, where it differs between ranks.

Each rank trains on its own samples, so a counter, a sum or a generator of a callback, a task or a
train step can differ between the ranks. Rank 0 writes the checkpoints; therefore the ranks exchange
such states at the end of each epoch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from flambeau.errors import FlambeauWarning
from flambeau.training.events import Callback
from flambeau.training.run_state.object_state import digest_of

if TYPE_CHECKING:
    from flambeau.distributed.processes import ProcessGroup
    from flambeau.training.run import Run
    from flambeau.training.state import TrainState


class RankStates(Callback):
    """Exchanges the states of all ranks at the end of each epoch, for the checkpoint of rank 0.

    Args:
        group: The ranks that train together.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self._group = group
        self._run: Run | None = None
        self._step = -1
        self._differing: list[str] = []
        self._states: list[dict[str, Any]] = []

    def bind(self, run: Run) -> None:
        """Set the run of this rank, which is built after its callbacks."""
        self._run = run

    def on_epoch_end(self, state: TrainState) -> None:
        if self._run is None:
            return
        own = _states_of(self._run)
        digests = {name: _digest(state) for name, state in own.items()}
        all_digests = self._group.all_gather(digests)
        # Callbacks that write files are on rank 0 only.
        shared = [name for name in own if all(name in each for each in all_digests)]
        self._differing = [name for name in shared if len({each[name] for each in all_digests}) > 1]
        found = {name: own[name] for name in self._differing}
        self._states = self._group.all_gather(found) if self._group.broadcast(found) else []
        self._step = state.position.step

    def state_dict(self) -> dict[str, Any]:
        """Return the states for a checkpoint; those of another step than the present are absent."""
        is_present = self._run is not None and self._step == self._run.state.position.step
        return {"differing": self._differing, "states": self._states if is_present else []}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Restore the states of this rank; those of rank 0 are restored already.

        Warns:
            FlambeauWarning: The states of the other ranks are not in the checkpoint, which was
                written within an epoch or by another number of ranks.
        """
        differing, states = list(values.get("differing", ())), list(values.get("states", ()))
        if not differing or self._run is None:
            return
        if len(states) == self._group.world_size:
            _restore(self._run, states[self._group.rank])
        elif self._group.is_main:
            reason = (
                f"was written by {len(states)} ranks"
                if states
                else "was written within an epoch, and has only those of rank 0"
            )
            warnings.warn(
                f"[rank-state] The states of {', '.join(differing[:3])} differ between the ranks, "
                f"but the checkpoint {reason}. All {self._group.world_size} ranks continue with "
                "the state of rank 0. Resume from the checkpoint of an epoch's end on the same "
                "number of ranks, or keep such a state equal on all ranks.",
                FlambeauWarning,
                stacklevel=2,
            )


def _states_of(run: Run) -> dict[str, Any]:
    callbacks = [
        (f"callbacks[{index}] ({type(each).__name__})", each.state_dict())
        for index, each in enumerate(_on_each_rank(run))
    ]
    return {**run.objects.state_dict(), **dict(callbacks)}


def _on_each_rank(run: Run) -> list[Any]:
    callbacks = run.settings.callbacks
    return [each for each in callbacks if each.every_process and not isinstance(each, RankStates)]


def _restore(run: Run, states: Mapping[str, Any]) -> None:
    run.objects.load_state_dict(states)
    for index, callback in enumerate(_on_each_rank(run)):
        name = f"callbacks[{index}] ({type(callback).__name__})"
        if name in states:
            callback.load_state_dict(states[name])


def _digest(tree: object) -> str:
    """Return a text that differs, almost surely, if the content differs."""
    found = blake2b(digest_size=16)
    _add(found, tree)
    return found.hexdigest()


def _add(found: Any, tree: object) -> None:
    if isinstance(tree, Mapping):
        for key, value in cast("Mapping[Any, object]", tree).items():
            found.update(repr(key).encode())
            _add(found, value)
    elif isinstance(tree, list | tuple):
        found.update(b"[")
        for value in cast("Sequence[object]", tree):
            _add(found, value)
    elif isinstance(tree, Tensor | np.ndarray):
        array = cast("Any", tree)
        found.update(f"{array.dtype}{tuple(array.shape)}{digest_of(array)}".encode())
    else:
        found.update(f"{type(tree).__name__}{tree!r}".encode(errors="replace"))
