"""``OwnGenerators``: seeds random generators that data sets and samplers keep as attributes."""

from __future__ import annotations

import random as python_random
from collections.abc import Iterable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn

from flambeau import random as keyed

if TYPE_CHECKING:
    AnyGenerator: TypeAlias = (
        torch.Generator | np.random.Generator | np.random.RandomState | python_random.Random
    )

_PURPOSE = "own-generator"
# Limits of the search, as a data set may refer to any number of objects.
_DEPTH, _ITEMS, _OBJECTS = 4, 64, 2000


class OwnGenerators:
    """The generators of torch, NumPy and Python that objects keep, such as ``self.rng``.

    Seeding them with a key before the objects are used makes their numbers depend only on the key
    and on the state in which the user passed them, so a resumed run draws the same ones.

    Args:
        owners: Data sets, samplers, collate functions. Their attributes are searched, and those of
            objects that they refer to.
    """

    def __init__(self, owners: Iterable[object]) -> None:
        self._generators = find_generators(owners)
        self._bases = [_base(each) for each in self._generators]

    def __bool__(self) -> bool:
        return bool(self._generators)

    def seed(self, number: int) -> None:
        """Seed each generator from ``number`` and the state in which the user passed it."""
        for generator, base in zip(self._generators, self._bases, strict=True):
            _seed(generator, keyed.key(base, _PURPOSE, number))

    def states(self) -> list[Any]:
        """Return the states of the generators, for ``restore``."""
        return [_state(each) for each in self._generators]

    def restore(self, states: Iterable[Any]) -> None:
        """Restore what ``states`` returned."""
        for generator, state in zip(self._generators, states, strict=True):
            _set_state(generator, state)


def find_generators(owners: Iterable[object]) -> list[AnyGenerator]:
    """Return the generators among the attributes of the owners, each once, in a fixed order."""
    # Not at import: the first use of np.random imports a dozen modules.
    kinds = (torch.Generator, np.random.Generator, np.random.RandomState, python_random.Random)
    found: dict[int, AnyGenerator] = {}
    seen: dict[int, object] = {}
    waiting = [(owner, 0) for owner in owners]
    while waiting and len(seen) < _OBJECTS:
        owner, depth = waiting.pop(0)
        if id(owner) in seen:
            continue
        seen[id(owner)] = owner
        if isinstance(owner, kinds):
            found[id(owner)] = owner
        elif depth < _DEPTH:
            waiting += [(part, depth + 1) for part in _parts(owner)]
    return list(found.values())


def _parts(owner: object) -> list[object]:
    """Return the values of the attributes, or of a short list, that may lead to a generator."""
    if isinstance(owner, Tensor | nn.Module | type):
        return []
    if isinstance(owner, list | tuple):
        items = cast("list[object]", owner)
        return [*items] if len(items) <= _ITEMS else []
    return list(getattr(owner, "__dict__", {}).values())


def _base(generator: AnyGenerator) -> int:
    """Return a number that depends on the generator's current state, which does not change."""
    if isinstance(generator, torch.Generator):
        return generator.initial_seed()
    if isinstance(generator, np.random.Generator):
        return int(deepcopy(generator).integers(2**62))
    if isinstance(generator, np.random.RandomState):
        return int(deepcopy(generator).randint(2**31 - 1))
    return deepcopy(generator).getrandbits(62)


def _seed(generator: AnyGenerator, number: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(number)
    elif isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        bits.state = cast("Any", type(bits))(number).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(number & 0xFFFFFFFF)
    else:
        generator.seed(number)


def _state(generator: AnyGenerator) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.getstate()


def _set_state(generator: AnyGenerator, state: Any) -> None:
    if isinstance(generator, torch.Generator | np.random.RandomState):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        generator.setstate(state)


class LoaderGenerators:
    """The generators of a loader, its samplers and its data set, seeded once per epoch."""

    def __init__(self, loader: Iterable[Any]) -> None:
        batch_sampler = getattr(loader, "batch_sampler", None)
        self._samplers: list[Any] = [
            getattr(loader, "sampler", None),
            getattr(batch_sampler, "sampler", None),
            batch_sampler,
        ]
        dataset = getattr(loader, "dataset", None)
        self._others: list[Any] = [loader, dataset]
        self._own = OwnGenerators([loader, *self._samplers, dataset])
        self._states = self._own.states()

    def start(self, epoch: int) -> None:
        """Seed the loader's own generators, and call ``set_epoch`` where it is defined."""
        self._own.seed(epoch)
        samplers = [each for each in self._samplers if hasattr(each, "set_epoch")]
        for each in (*samplers[:1], *self._others):
            if hasattr(each, "set_epoch"):
                each.set_epoch(epoch)

    def restore(self) -> None:
        """Restore the states from before ``start``."""
        self._own.restore(self._states)
