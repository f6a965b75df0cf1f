"""The global random number generators of torch, NumPy and Python: seeded, saved, restored.

User code (a data set, a model) may draw from any of them. Seeding them by key before it runs makes
what it draws a function of (seed, epoch, sample), so that a resumed run gets the same numbers.
"""

from __future__ import annotations

import random as python_random
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def _numpy_random() -> Any:
    """``np.random``, which loads a dozen modules when it is first named.

    As ``Any``: NumPy's stubs leave out get_bit_generator and set_bit_generator (public since 1.24).
    """
    return np.random


def seed_globals(number: int) -> None:
    """Seeds the three generators with ``number`` (7 µs; ``torch.manual_seed`` alone takes 130)."""
    # torch.manual_seed would also seed every accelerator, which data code has no business with.
    torch.default_generator.manual_seed(number)
    np.random.seed(number & 0xFFFFFFFF)  # noqa: NPY002 the global one is what users draw from
    python_random.seed(number)


class TemporarySeed:
    """A ``with`` block in which the global generators start at a key; afterwards they go on.

    One object serves any number of blocks, one after another. It costs 23 µs a block (2-core
    EPYC): NumPy's generator is exchanged (2 µs) rather than copied out and in (75 µs). Exchanging
    it forgets the second number of a pair that ``np.random.randn`` may hold back; nothing else is
    lost.

    Example:
        >>> borrowed = TemporarySeed()
        >>> with borrowed.at(3):
        ...     first = torch.rand(1)
        >>> with borrowed.at(3):
        ...     torch.equal(first, torch.rand(1))
        True
    """

    def __init__(self) -> None:
        self._numpy = np.random.MT19937(0)
        self._number = 0
        self._saved: tuple[Tensor, tuple[Any, ...], np.random.BitGenerator] | None = None

    def at(self, number: int) -> TemporarySeed:
        """The block's starting point, a key from ``flambeau.random.key``."""
        self._number = number
        return self

    def __enter__(self) -> None:
        self._saved = (
            torch.default_generator.get_state(),
            python_random.getstate(),
            _numpy_random().get_bit_generator(),
        )
        _numpy_random().set_bit_generator(self._numpy)
        seed_globals(self._number)

    def __exit__(self, *exception: object) -> None:
        if self._saved is not None:
            torch_state, python_state, numpy_bits = self._saved
            torch.default_generator.set_state(torch_state)
            python_random.setstate(python_state)
            _numpy_random().set_bit_generator(numpy_bits)
            self._saved = None


def generator_states() -> dict[str, Any]:
    """State of torch's (CPU and every CUDA device), Python's and NumPy's global generators."""
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": python_random.getstate(),
        "numpy": np.random.get_state(legacy=True),  # noqa: NPY002 the global one is what users draw from
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_generators(states: Mapping[str, Any]) -> None:
    """The inverse of ``generator_states``; a checkpoint from more GPUs restores those at hand."""
    torch.set_rng_state(states["torch"].cpu())
    version, words, gauss = states["python"]
    python_random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    keys = np.asarray(keys, dtype=np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))  # noqa: NPY002 see above
    for index, state in enumerate(states.get("cuda", [])):
        if torch.cuda.is_available() and index < torch.cuda.device_count():
            torch.cuda.set_rng_state(state.cpu(), index)


@contextmanager
def preserve_generators() -> Generator[None]:
    """A ``with`` block after which the global generators are in the state from before it."""
    states = generator_states()
    try:
        yield
    finally:
        restore_generators(states)
