"""Counts the moments at which the host waits for a tensor's values."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_READING_OPERATIONS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")
_READING_METHODS = ("tolist", "numpy", "cpu")


class HostReads(TorchDispatchMode):
    """Counts host reads while ``active``: by name, in ``found``.

    ``.item()``, ``float()`` and ``bool()`` reach torch's dispatcher; ``.tolist()``, ``.numpy()``
    and ``.cpu()`` need not (on the CPU they are done without), so ``watched`` counts those by
    standing in for the methods while it lasts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.active = False
        self.found: dict[str, int] = {}

    @property
    def total(self) -> int:
        """All reads."""
        return sum(self.found.values())

    def count(self, name: str) -> None:
        """One read more, if the counter is active."""
        if self.active:
            self.found[name] = self.found.get(name, 0) + 1

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if (name := func._schema.name) in _READING_OPERATIONS:
            self.count(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def watched() -> Iterator[HostReads]:
    """A counter that sees everything inside the block; switch it on with ``active``."""
    reads = HostReads()
    original = {name: getattr(Tensor, name) for name in _READING_METHODS}
    for name, method in original.items():
        setattr(Tensor, name, _counting(reads, name, method))
    try:
        with reads:
            yield reads
    finally:
        for name in original:
            # They are torch's base class's: ours were put in front of them.
            delattr(Tensor, name)


def _counting(reads: HostReads, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def counted(self: Tensor, *arguments: Any, **named: Any) -> Any:
        reads.count(f"Tensor.{name}")
        return method(self, *arguments, **named)

    return counted


@contextmanager
def refused() -> Iterator[None]:
    """CUDA raises where the host would wait for the device, until the block ends."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            # torch warns that it does not know every such operation; where warnings are errors,
            # after the mode is set.
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
