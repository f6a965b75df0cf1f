"""``loaders``: a shuffled epoch of data in memory, against a ``DataLoader`` that goes by item."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.data import Dataset as TorchDataset

from flambeau import random as keyed
from flambeau.data.loader import LoaderOptions, epoch_order
from flambeau.data.memory_loader import MemoryDataset
from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Gate, Question, Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.timing import clock_for, threads

PER_ITEM, OURS = "DataLoader by item", "flambeau"


@dataclass(frozen=True)
class Kind:
    """What is loaded, and how many times as fast it should be."""

    rows: str
    batch_size: int
    limit: float


VARIANTS = {
    "tables": Kind("table_rows", 1_024, 40.0),
    "images": Kind("images", 512, 6.0),
}


def make_columns(variant: str, n: int) -> list[Tensor]:
    """Inputs, then the target: each row's own number, by which its place in an epoch is known."""
    draws = torch.Generator().manual_seed(0)
    rows = torch.arange(n)
    if variant == "tables":
        codes = torch.randint(100, (n, 5), generator=draws)
        return [torch.randn(n, 20, generator=draws), codes, rows]
    # Seeded and not zeros: what is all one page of memory copies faster.
    return [torch.randint(256, (n, 3, 32, 32), generator=draws, dtype=torch.uint8), rows]


class ByItem(TorchDataset[tuple[Tensor, ...]]):
    """The usual data set: one sample a call."""

    def __init__(self, columns: Sequence[Tensor]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(column[index] for column in self._columns)


class Loaders(Case):
    """Tables (20 float32, 5 int64, a target) and uint8 images 3×32×32, shuffled, in memory.

    Both sides shuffle with the same keyed generator, so that their batches must be equal one by
    one. Main-process CPU time of one epoch, one thread.
    """

    name: ClassVar = "loaders"
    asks: ClassVar = "How much faster is an epoch of data in memory than by a DataLoader by item?"
    sizes: ClassVar = {
        "quick": Size("quick", {"table_rows": 20_480, "images": 10_240}),
        "cpu": Size("cpu", {"table_rows": 200_000, "images": 50_000}),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        return [
            Comparison(
                name,
                PER_ITEM,
                OURS,
                (
                    Question("ns_per_item", "speed-up", "× as fast", kind.limit, at_most=False),
                    Question("ns_per_item", "value", "ns/item"),
                ),
            )
            for name, kind in VARIANTS.items()
        ]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        kind = VARIANTS[comparison.variant]
        n = size[kind.rows]
        columns = make_columns(comparison.variant, n)
        clock = clock_for(torch.device("cpu"))
        taken: list[Tensor] = []
        with threads(1):
            batches = self.epoch(side, columns, kind.batch_size, pair)
            started = clock()
            for batch in batches:
                taken.append(batch[-1])
            seconds = clock() - started
            # Once is enough, and it takes as long as the epoch.
            again = self.epoch(side, columns, kind.batch_size, pair) if pair == 0 else ()
            contents = content_hash(again)
        order = epoch_order(n, _options(kind.batch_size), pair)
        return Measurement(
            {"ns_per_item": seconds / n * 1e9},
            steps=len(taken),
            items=sum(map(len, taken)),
            order_hash=fingerprint.of_tensors(taken),
            settings={**fingerprint.machine_settings(), "batch_size": kind.batch_size},
            quality={
                "contents": contents,
                "seeds_order": fingerprint.of_tensors(order.split(kind.batch_size)),
            },
        )

    def epoch(
        self, side: str, columns: Sequence[Tensor], batch_size: int, epoch: int
    ) -> Iterable[Sequence[Tensor]]:
        """The batches of one epoch, made as they are asked for."""
        options = _options(batch_size)
        if side == OURS:
            inputs = {str(place): column for place, column in enumerate(columns[:-1])}
            return _ours(MemoryDataset(inputs, {"row": columns[-1]}), options, epoch)
        data = ByItem(columns)
        shuffle = keyed.generator(options.seed, "shuffle", epoch)
        return DataLoader(
            data, batch_size=batch_size, sampler=RandomSampler(data, generator=shuffle)
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """The same samples, all of them once, in the order of the seed."""
        for number, (baseline, candidate) in enumerate(pairs):
            if candidate.order_hash != candidate.quality["seeds_order"]:
                return Gate(False, f"epoch {number} is not in the order of its seed")
            if baseline.quality["contents"] != candidate.quality["contents"]:
                return Gate(False, f"the samples of epoch {number} differ")
        return Gate(True, "every sample once, in the seed's order, equal to the last byte")


def _options(batch_size: int) -> LoaderOptions:
    return LoaderOptions(batch_size=batch_size, shuffle=True, seed=0)


def _ours(dataset: MemoryDataset, options: LoaderOptions, epoch: int) -> Iterator[Sequence[Tensor]]:
    for batch in dataset.loader(options).batches(epoch):
        yield [*batch.inputs.values(), batch.target]


def content_hash(batches: Iterable[Sequence[Tensor]]) -> str:
    """A hash of every value of every batch."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(fingerprint.of_tensors(batch).encode())
    return digest.hexdigest()[:16]
