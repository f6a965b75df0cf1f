"""Count how often the host reads a tensor's value, which makes it wait for the device."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flambeau.torch_internals import dispatch_mode_class

_READING_OPERATIONS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")
_READING_METHODS = ("tolist", "numpy", "cpu")
_READING_FUNCTIONS = (
    *_READING_METHODS, "item", "is_nonzero", "equal", "__bool__", "__float__", "__int__",
)  # fmt: skip


class HostReads:
    """Counts host reads while ``active`` is True; ``found`` has the counts by operation."""

    def __init__(self) -> None:
        self.active = False
        self.found: dict[str, int] = {}

    @property
    def total(self) -> int:
        """Number of all reads."""
        return sum(self.found.values())

    def count(self, name: str) -> None:
        """Count a read, if the counter is active."""
        if self.active:
            self.found[name] = self.found.get(name, 0) + 1


@contextmanager
def count_host_reads() -> Iterator[HostReads]:
    """Yield a counter of the host reads in the block; ``active`` switches it on.

    If torch has no dispatch mode, only reads that Python code requests are counted.
    """
    reads = HostReads()
    base = dispatch_mode_class()
    if base is None:
        with _FunctionMode(reads):
            yield reads
    else:
        with _counted_methods(reads), _dispatch_mode(base, reads):
            yield reads


def _dispatch_mode(base: type[Any], reads: HostReads) -> Any:
    """Return a context that counts ``.item()``, ``float()`` and ``bool()``."""

    class DispatchMode(base):
        def __torch_dispatch__(
            self,
            func: Any,
            types: Any,
            args: tuple[Any, ...] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            if (name := func.name()) in _READING_OPERATIONS:
                reads.count(name)
            return func(*args, **(kwargs or {}))

    return DispatchMode()


@contextmanager
def _counted_methods(reads: HostReads) -> Iterator[None]:
    """Count calls of methods that may bypass the dispatcher on the CPU; replaces the methods."""
    original = {name: getattr(Tensor, name) for name in _READING_METHODS}
    for name, method in original.items():
        setattr(Tensor, name, _counting(reads, name, method))
    try:
        yield
    finally:
        for name in original:
            # They are torch's base class's: ours were put in front of them.
            delattr(Tensor, name)


class _FunctionMode(TorchFunctionMode):
    def __init__(self, reads: HostReads) -> None:
        super().__init__()
        self._reads = reads

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if (name := func.__name__) in _READING_FUNCTIONS:
            self._reads.count(name)
        return func(*args, **(kwargs or {}))


def _counting(reads: HostReads, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def counted(self: Tensor, *arguments: Any, **named: Any) -> Any:
        reads.count(f"Tensor.{name}")
        return method(self, *arguments, **named)

    return counted


@contextmanager
def forbid_host_reads() -> Iterator[None]:
    """Let CUDA raise inside the block whenever the host would wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings():
            # torch warns that it does not detect every such operation. Where warnings are errors,
            # this is raised after the mode is set.
            warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
