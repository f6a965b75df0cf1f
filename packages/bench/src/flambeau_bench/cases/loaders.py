"""``loaders``: a shuffled epoch of data in memory, compared with a per-sample ``DataLoader``."""

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
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.timing import clock_for, threads

PER_SAMPLE, FLAMBEAU = "DataLoader per sample", "flambeau"


@dataclass(frozen=True)
class LoaderVariant:
    """A variant: the data that are loaded, and the required speed-up.

    Attributes:
        rows: Key of the number of rows in ``Size.counts``.
        batch_size: Rows per batch.
        limit: The required speed-up.
    """

    rows: str
    batch_size: int
    limit: float


VARIANTS = {
    "tables": LoaderVariant("table_rows", 1_024, 40.0),
    "images": LoaderVariant("images", 512, 6.0),
}


def make_columns(variant: str, n: int) -> list[Tensor]:
    """Return the inputs and, last, the target: row numbers, which show the order of the rows."""
    draws = torch.Generator().manual_seed(0)
    rows = torch.arange(n)
    if variant == "tables":
        codes = torch.randint(100, (n, 5), generator=draws)
        return [torch.randn(n, 20, generator=draws), codes, rows]
    # Random values, because zeros share one page of memory and are copied faster.
    return [torch.randint(256, (n, 3, 32, 32), generator=draws, dtype=torch.uint8), rows]


class PerSampleDataset(TorchDataset[tuple[Tensor, ...]]):
    """A typical PyTorch data set: one sample per call."""

    def __init__(self, columns: Sequence[Tensor]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(column[index] for column in self._columns)


class Loaders(Case):
    """Load shuffled tables (20 float32 and 5 int64 columns) or uint8 images 3×32×32 from memory.

    Both sides shuffle with the same keyed generator, so their batches must be equal one by one.
    The figure is CPU time of the main process over one epoch, with one thread.
    """

    name: ClassVar = "loaders"
    question: ClassVar = "How much faster is an epoch from memory than with a DataLoader?"
    sizes: ClassVar = {
        "quick": Size("quick", {"table_rows": 20_480, "images": 10_240}, pairs=1, floor_pairs=1),
        "cpu": Size("cpu", {"table_rows": 200_000, "images": 50_000}),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        return [
            Comparison(
                name,
                PER_SAMPLE,
                FLAMBEAU,
                (
                    Criterion("ns_per_sample", "speed-up", "× as fast", each.limit, at_most=False),
                    Criterion("ns_per_sample", "value", "ns/sample"),
                ),
            )
            for name, each in VARIANTS.items()
        ]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        variant = VARIANTS[comparison.variant]
        n = size[variant.rows]
        columns = make_columns(comparison.variant, n)
        clock = clock_for(torch.device("cpu"))
        targets: list[Tensor] = []
        with threads(1):
            batches = self.epoch(side, columns, variant.batch_size, pair)
            started = clock()
            for batch in batches:
                targets.append(batch[-1])
            seconds = clock() - started
            # In the first pair only, because it takes as long as the epoch.
            again = self.epoch(side, columns, variant.batch_size, pair) if pair == 0 else ()
            contents = content_hash(again)
        order = epoch_order(n, _options(variant.batch_size), pair)
        return Measurement(
            {"ns_per_sample": seconds / n * 1e9},
            steps=len(targets),
            samples=sum(map(len, targets)),
            order_hash=fingerprint.of_tensors(targets),
            settings={**fingerprint.machine_settings(), "batch_size": variant.batch_size},
            quality={
                "contents": contents,
                "order_of_seed": fingerprint.of_tensors(order.split(variant.batch_size)),
            },
        )

    def epoch(
        self, side: str, columns: Sequence[Tensor], batch_size: int, epoch: int
    ) -> Iterable[Sequence[Tensor]]:
        """Return an iterable of the batches of one epoch, which are created on demand."""
        options = _options(batch_size)
        if side == FLAMBEAU:
            inputs = {str(index): column for index, column in enumerate(columns[:-1])}
            return _flambeau(MemoryDataset(inputs, {"row": columns[-1]}), options, epoch)
        data = PerSampleDataset(columns)
        shuffle = keyed.generator(options.seed, "shuffle", epoch)
        return DataLoader(
            data, batch_size=batch_size, sampler=RandomSampler(data, generator=shuffle)
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require that both sides have the same samples, each once, in the order of the seed."""
        for number, (baseline, candidate) in enumerate(pairs):
            if candidate.order_hash != candidate.quality["order_of_seed"]:
                return Gate(False, f"epoch {number} does not have the order of its seed")
            if baseline.quality["contents"] != candidate.quality["contents"]:
                return Gate(False, f"the samples of epoch {number} differ")
        return Gate(True, "each sample once, in the order of the seed, with equal bytes")


def _options(batch_size: int) -> LoaderOptions:
    return LoaderOptions(batch_size=batch_size, shuffle=True, seed=0)


def _flambeau(
    dataset: MemoryDataset, options: LoaderOptions, epoch: int
) -> Iterator[Sequence[Tensor]]:
    for batch in dataset.loader(options).batches(epoch):
        yield [*batch.inputs.values(), batch.target]


def content_hash(batches: Iterable[Sequence[Tensor]]) -> str:
    """Return a hash of all values of all batches."""
    digest = hashlib.sha256()
    for batch in batches:
        digest.update(fingerprint.of_tensors(batch).encode())
    return digest.hexdigest()[:16]
