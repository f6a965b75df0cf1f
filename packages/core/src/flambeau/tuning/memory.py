"""How much memory a step takes, and into how many parts it is cut to fit."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

SHARE = {"cpu": 0.6, "cuda": 0.85, "mps": 0.7}
"""Of the free memory, what a step may take: the meter does not see what kernels use inside."""

# Bytes that a step may keep for one number of its inputs, generously: networks for pictures keep
# 100 to 800 times their float inputs (resnet18 at 32×32: 760), embeddings one row a whole number.
_PER_FLOAT, _PER_INTEGER = 4_000, 100_000
_SURELY_FITS = 0.05  # of the free memory, by that bound


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of a step: ``fixed_bytes + samples · bytes_per_sample``, measured at two sizes.

    Attributes:
        fixed_bytes: Gradients, the optimizer's state, what does not grow with the batch.
        bytes_per_sample: What the forward pass keeps for the backward pass.
        measured: Samples → bytes at the peak of a real step.
    """

    fixed_bytes: int
    bytes_per_sample: float
    measured: Mapping[int, int]

    def of(self, samples: int) -> int:
        """Bytes of a step of ``samples``."""
        return round(self.fixed_bytes + samples * self.bytes_per_sample)

    def most_samples(self, free_bytes: int, device: str) -> int:
        """The largest batch that fits; 0 where not even one sample does."""
        room = SHARE.get(device, 0.6) * free_bytes - self.fixed_bytes
        if room <= 0:
            return 0
        return int(room / self.bytes_per_sample) if self.bytes_per_sample > 0 else 2**31


class Meter(Protocol):
    """Counts the memory that steps take."""

    def peak_bytes(self) -> int:
        """The most that was taken at once so far, beyond what there was at the start."""
        ...


def fit_line(peaks: Mapping[int, tuple[int, int]]) -> MemoryUse:
    """The line through two measured sizes.

    Args:
        peaks: Samples → (peak up to the backward pass, peak of the whole step), for two sizes.

    The slope is that of the first: at small sizes the peak of the whole step is often at the
    update, which does not grow with the batch, and a line through two such peaks would promise
    that any batch fits.
    """
    (small, (kept_small, _)), (large, (kept_large, _)) = sorted(peaks.items())
    slope = max(0.0, (kept_large - kept_small) / (large - small))
    fixed = max(whole - slope * samples for samples, (_, whole) in peaks.items())
    return MemoryUse(
        max(0, round(fixed)), slope, {samples: whole for samples, (_, whole) in peaks.items()}
    )


def split_step(batch_size: int, most: int, least: int = 1) -> tuple[int, int]:
    """``(batch_size, accumulate)`` of equal parts that fit and make the same step together.

    Args:
        batch_size: Of the whole step.
        most: Samples that fit; the parts are larger only where ``least`` asks for it.
        least: Samples that a part must have.

    >>> split_step(64, 100), split_step(64, 20), split_step(50, 20), split_step(64, 0, least=2)
    ((64, 1), (16, 4), (10, 5), (2, 32))
    """
    sizes = [size for size in range(1, batch_size + 1) if batch_size % size == 0 and size >= least]
    size = max((size for size in sizes if size <= most), default=min(sizes, default=batch_size))
    return size, batch_size // size


def surely_fits(inputs: Iterable[Mapping[str, Any]], batch_size: int, free_bytes: int) -> bool:
    """Whether no usual network could fill the memory with such a batch, so that none is measured.

    Args:
        inputs: ``{"shape": [sizes of one sample], "dtype": …}`` of each input.
        batch_size: Samples.
        free_bytes: Of the device.
    """
    bound = 0
    for column in inputs:
        count = 1
        for size in column["shape"]:
            count *= int(size)
        bound += count * (_PER_FLOAT if "float" in str(column["dtype"]) else _PER_INTEGER)
    return batch_size * bound < _SURELY_FITS * free_bytes


@contextmanager
def metered(device: torch.device, known: Sequence[Tensor]) -> Generator[Meter]:
    """Counts what is allocated inside the block.

    Args:
        device: Where the step runs.
        known: Tensors that are there already; writing into them allocates nothing.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield _OfCuda(device, before)
    else:
        allocations = Allocations(known)
        with allocations:
            yield allocations


class _OfCuda:
    def __init__(self, device: torch.device, before: int) -> None:
        self._device, self._before = device, before

    def peak_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before


class Allocations(TorchDispatchMode):
    """Bytes of the tensors that operations make, until they are freed; exact and repeatable.

    A process's own size would be neither: allocators keep what was freed. What a kernel takes for
    itself while it runs is not seen.

    Args:
        known: Tensors that are there already.
    """

    def __init__(self, known: Sequence[Tensor] = ()) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType] torch's is untyped
        self._live = self._peak = 0
        self._watched: dict[int, Any] = {}
        for tensor in known:
            self._watch(tensor, counts=False)

    def peak_bytes(self) -> int:
        return self._peak

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else torch imports its compiler (see `flambeau.training.bare`) to mark what follows."""
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        for leaf in cast("list[object]", tree.tree_leaves(answer)):
            if isinstance(leaf, Tensor):
                self._watch(leaf)
        return answer

    def _watch(self, tensor: Tensor, *, counts: bool = True) -> None:
        storage = tensor.untyped_storage()
        place = storage._cdata  # pyright: ignore[reportPrivateUsage] as torch's own MemTracker
        if place in self._watched:
            return
        size = storage.nbytes() if counts else 0

        def freed(_: object) -> None:
            self._watched.pop(place, None)
            self._live -= size

        self._watched[place] = weakref.ref(storage, freed)
        self._live += size
        self._peak = max(self._peak, self._live)
