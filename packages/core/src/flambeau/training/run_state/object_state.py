"""The state of objects that a user passes to a run: losses, controllers, transforms, train steps.

No method of such an object returns its whole state: a counter may be an attribute, an entry of a
list, or a variable of the function around a train step. Therefore the values are found by following
all references from the objects.
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.errors import ResumeError
from flambeau.training.run_state.object_parts import (
    EXTRA_STATE,
    is_flambeau,
    parts_of,
    remove_parts,
    set_part,
)

_SCALARS = (bool, int, float, str, type(None))
_MOST_BYTES = 2**20  # of a tensor that is saved although it has not changed
_MOST_ENTRIES = 1000  # of a list of numbers that is saved although it has not changed
_CONTAINERS: Mapping[str, Any] = {
    each.__name__: each for each in (list, tuple, deque, set, frozenset)
}
_SKIP = {"kind": "skipped"}
_LONG = 1_000  # entries of a list of numbers that is saved as an array
_ABSENT = object()


class ObjectStates:
    """The state of several objects, saved as a tree of plain values and tensors.

    Saved are numbers, texts, tensors, arrays and random generators, in attributes, modules, lists,
    dictionaries, sets and variables of functions; and what ``state_dict`` returns, if the object
    has ``load_state_dict`` too. Tensors of more than 1 MiB (a frozen teacher) and lists of more
    than 1,000 numbers are saved only if they have changed since the first call of ``state_dict``.
    Lists of at least 1,000 floats, or integers, are saved as arrays.

    Args:
        objects: The objects by name.
        known: Objects that are saved elsewhere (parameters).
        by_parts: Objects whose ``state_dict`` is saved elsewhere (optimizers), but whose other
            attributes are not.
        copies: Copy all values, also large ones, in order to restore them in the same process;
            attributes that are added in the meantime are then removed.

    Attributes:
        not_savable: "name.attribute is a …" for each value that cannot be saved: an iterator, which
            changes when it is read. Set by ``state_dict``.
    """

    def __init__(
        self,
        objects: Mapping[str, object],
        known: Iterable[object] = (),
        by_parts: Iterable[object] = (),
        *,
        copies: bool = False,
    ) -> None:
        self._copies = copies
        self._objects, self._known = objects, tuple(known)
        self._by_parts = {id(each): each for each in by_parts}
        self._digests: dict[str, int | None] = {}  # of large values at the start; None: changed
        self._seen: dict[int, object] = {}  # the objects too: the id of a freed one is used again
        self.not_savable: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the state; tensors are not copied unless ``copies`` is set."""
        self._seen = {id(each): each for each in self._known}
        self.not_savable = []
        return {name: self._saved(value, name) for name, value in self._objects.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned; tensors, lists and dictionaries are changed in place.

        Raises:
            ResumeError: The objects differ from those whose state was saved.
        """
        with torch.no_grad():
            for name, value in self._objects.items():
                if name in state:
                    self._restored(value, state[name], name)

    def _saved(self, value: object, path: str) -> Any:
        if type(value) in _SCALARS:
            return value
        if id(value) in self._seen:
            return _SKIP
        self._seen[id(value)] = value
        if isinstance(value, Tensor | np.ndarray):
            array = cast("Any", value)
            return self._unless_unchanged(cast("object", value), path, array)
        if isinstance(value, np.generic):
            return cast("Any", value)  # a checkpoint contains the Python number
        if (generator := _generator_state(value)) is not None:
            return {"kind": "generator", "state": generator}
        if type(value) in _CONTAINERS.values():
            return self._unless_unchanged(value, path, self._saved_entries(value, path))
        if isinstance(value, dict):
            return self._saved_dict(cast("dict[Any, object]", value), path)
        return self._saved_object(value, path)

    def _saved_entries(self, value: object, path: str) -> dict[str, Any]:
        if (numbers := _numbers(value)) is not None:
            return {"kind": "numbers", "values": numbers}
        entries = list(cast("list[object]", value))
        saved = [self._saved(each, f"{path}[{i}]") for i, each in enumerate(entries)]
        return {"kind": "entries", "type": type(value).__name__, "values": saved}

    def _saved_dict(self, value: dict[Any, object], path: str) -> Any:
        if not all(type(key) in (str, int) for key in value):
            return _SKIP if not value else self._refuse(path, "dictionary with other keys than str")
        saved = {key: self._saved(each, f"{path}[{key!r}]") for key, each in value.items()}
        return self._unless_unchanged(value, path, {"kind": "dict", "values": saved})

    def _saved_object(self, value: object, path: str) -> Any:
        if hasattr(value, "__next__"):
            return self._refuse(path, type(value).__name__)
        if _has_own_state(value) and id(value) not in self._by_parts:
            state = cast("Any", value).state_dict()
            return {"kind": "state_dict", "state": deepcopy(state) if self._copies else state}
        parts = {name: self._saved(p, f"{path}.{name}") for name, p in parts_of(value).items()}
        if not self._copies:
            parts = {name: part for name, part in parts.items() if part is not _SKIP}
        return {"kind": "parts", "values": parts} if parts else _SKIP

    def _refuse(self, path: str, kind: str) -> Any:
        self.not_savable.append(f"{path} is a {kind}")
        return _SKIP

    def _unless_unchanged(self, value: object, path: str, saved: Any) -> Any:
        """Return ``saved``, or nothing if the value is large and as it was at the first call."""
        if self._copies:
            return _copied(saved)
        if not _is_large(value):
            return saved
        digest = digest_of(value)
        if self._digests.setdefault(path, digest) == digest:
            return _SKIP
        self._digests[path] = None  # from now on it is saved
        return saved

    def _restored(self, present: object, saved: Any, path: str) -> Any:
        """Return the value to set in place of ``present``, which is changed in place if possible.

        Args:
            present: The value of this run; ``_ABSENT`` if there is none.
            saved: What ``_saved`` returned for it.
            path: The name of the value, for messages.
        """
        if not isinstance(saved, dict):
            return _restored_value(present, saved, path)
        tree = cast("dict[str, Any]", saved)
        kind = tree["kind"]
        if kind == "skipped":
            if present is _ABSENT:
                raise _missing(path)
            return present
        if kind == "entries":
            return self._restored_entries(present, tree, path)
        if kind == "numbers":
            return _restored_numbers(present, tree["values"])
        if kind == "dict":
            return self._restored_dict(present, tree["values"], path)
        if present is _ABSENT or type(present) in _SCALARS:
            raise _missing(path)
        if kind == "generator":
            _set_generator_state(present, tree["state"])
        elif kind == "state_dict":
            cast("Any", present).load_state_dict(tree["state"])
        else:
            self._restored_parts(present, tree["values"], path)
        return present

    def _restored_parts(self, owner: object, saved: Mapping[str, Any], path: str) -> None:
        parts = parts_of(owner)
        for name, each in saved.items():
            before = parts.get(name, _ABSENT)
            after = self._restored(before, each, f"{path}.{name}")
            is_same = after is before or (type(after) in _SCALARS and after == before)
            is_same = is_same and name != EXTRA_STATE  # the module may have returned a copy
            if not is_same and not set_part(owner, name, after):
                raise _missing(f"{path}.{name}")
        if self._copies:
            remove_parts(owner, parts_of(owner).keys() - saved.keys())

    def _restored_entries(self, present: Any, saved: Mapping[str, Any], path: str) -> Any:
        kind, values = saved["type"], saved["values"]
        if type(present) is not _CONTAINERS[kind]:
            if kind == "deque":  # its greatest length is not known
                raise _missing(path)
            present = _CONTAINERS[kind]()
        before: list[Any] = [] if kind in ("set", "frozenset") else list(present)
        before += [_ABSENT] * (len(values) - len(before))
        pairs = enumerate(zip(before, values, strict=False))
        after = [self._restored(old, each, f"{path}[{i}]") for i, (old, each) in pairs]
        if kind in ("tuple", "frozenset"):
            return _CONTAINERS[kind](after)
        present.clear()
        (present.update if kind == "set" else present.extend)(after)
        return present

    def _restored_dict(self, present: object, saved: Mapping[Any, Any], path: str) -> Any:
        target = cast("dict[Any, Any]", present if isinstance(present, dict) else {})
        after = {
            key: self._restored(target.get(key, _ABSENT), each, f"{path}[{key!r}]")
            for key, each in saved.items()
        }
        target.clear()
        target.update(after)
        return target


def _numbers(value: object) -> np.ndarray | None:
    """Return a long list of floats or of integers as an array, which a checkpoint writes faster."""
    if type(value) is not list or len(entries := cast("list[object]", value)) < _LONG:
        return None
    kinds = set(map(type, entries))
    if kinds == {float}:
        return np.array(entries, dtype=np.float64)
    if kinds == {int} and all(abs(cast("int", each)) < 1 << 62 for each in entries):
        return np.array(entries, dtype=np.int64)
    return None


def _restored_numbers(present: object, saved: np.ndarray) -> list[Any]:
    found = cast("list[Any]", present) if type(present) is list else []
    found[:] = memoryview(cast("Any", np.ascontiguousarray(saved)))  # Python's numbers
    return found


def _restored_value(present: object, saved: Any, path: str) -> Any:
    if isinstance(present, Tensor) and isinstance(saved, Tensor):
        if present.shape == saved.shape:
            present.copy_(saved)  # in place: other objects may refer to the same tensor
            return present
        if isinstance(present, torch.nn.Parameter):
            raise ResumeError(
                f"{path} has the shape {tuple(saved.shape)} in the checkpoint and "
                f"{tuple(present.shape)} in this run. Create the object as for the interrupted run."
            )
        return saved.detach().clone().to(present.device)
    array = cast("Any", present)
    if isinstance(present, np.ndarray) and isinstance(saved, np.ndarray):
        theirs = cast("Any", saved)
        if array.shape == theirs.shape and array.dtype == theirs.dtype:
            array[...] = theirs
            return array
    return cast("Any", saved)


def _copied(saved: Any) -> Any:
    if isinstance(saved, Tensor):
        return saved.detach().clone()
    return np.array(cast("Any", saved)) if isinstance(saved, np.ndarray) else saved


def _generator_state(value: object) -> Any:
    """Return the state of a random generator as plain values, None for other objects."""
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    return value.state if isinstance(value, np.random.BitGenerator) else None


def _set_generator_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.BitGenerator):
        generator.state = state
    else:
        generator.set_state(state)


def _has_own_state(value: object) -> bool:
    """Return whether an object other than a module saves and loads its state."""
    methods = (getattr(value, name, None) for name in ("state_dict", "load_state_dict"))
    is_other = isinstance(value, torch.nn.Module | type) or is_flambeau(type(value).__module__)
    return not is_other and all(map(callable, methods))


def _is_large(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.nbytes > _MOST_BYTES
    if isinstance(value, np.ndarray):
        return cast("np.ndarray[Any, Any]", value).nbytes > _MOST_BYTES
    entries = cast("Any", value).values() if isinstance(value, dict) else cast("Any", value)
    return len(entries) > _MOST_ENTRIES and all(type(each) in _SCALARS for each in entries)


def digest_of(value: Any) -> int:
    """Return a number that differs, almost surely, if the content differs."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().view(torch.uint8).numpy()
    if isinstance(value, np.ndarray):
        return zlib.crc32(np.ascontiguousarray(cast("Any", value)).data.cast("B"))
    return zlib.crc32(repr(value).encode(errors="replace"))


def _missing(path: str) -> ResumeError:
    return ResumeError(
        f"The checkpoint has a state of {path}, which this run does not have before its first "
        "step. Create the same object before the run (in __init__, not in the first step)."
    )
