"""``PackedDataset``: whole documents in rows of a fixed length, which do not see each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, LoaderOptions, shard_bounds
from flambeau_text.language.stream import NEXT, TOKENS, LineCounts, TokenStream
from flambeau_text.models.packing import DOCUMENTS

_OPEN = 32
"""Rows that are filled at the same time; a document goes into the first one with room for it."""


class Texts(Protocol):
    """Texts of tokens with their targets, of at most the length of a row each.

    Attributes:
        starts: Start of each text, and the end of the last, int64 ``(texts + 1,)``.
    """

    starts: Tensor

    def part(self, text: int) -> tuple[Tensor, Tensor, Tensor | bool]:
        """Return what is read of a text, the token after each, and whether this is a target."""
        ...


@dataclass(frozen=True)
class PackedTexts(Texts):
    """Texts with their targets in memory.

    Attributes:
        read: Tokens that the model reads, of all texts, int32 ``(n,)``.
        targets: The token after each of them, int32 ``(n,)``.
        mask: Whether the target counts in the loss, bool ``(n,)``.
        starts: As for `Texts`.
    """

    read: Tensor
    targets: Tensor
    mask: Tensor
    starts: Tensor

    def part(self, text: int) -> tuple[Tensor, Tensor, Tensor | bool]:
        at = slice(int(self.starts[text]), int(self.starts[text + 1]))
        return self.read[at], self.targets[at], self.mask[at]


class StreamTexts(Texts):
    """The documents of a stream, divided into pieces of at most ``length`` tokens.

    Every token is a target once. The first token of a document is predicted from the start token; a
    piece that continues a document reads its last token first, and not what was before.

    Args:
        stream: The documents; the tokens may be in a memory-mapped file.
        length: Number of tokens of a row.
    """

    def __init__(self, stream: TokenStream, length: int) -> None:
        self._stream = stream
        bounds = stream.starts.tolist()
        begins = [at for pair in pairwise(bounds) for at in range(*pair, length)]
        self.starts = torch.tensor([*begins, bounds[-1]])
        self._begins = set(bounds)

    def part(self, text: int) -> tuple[Tensor, Tensor, Tensor | bool]:
        begin, end = int(self.starts[text]), int(self.starts[text + 1])
        tokens, targets = self._stream.tokens, self._stream.tokens[begin:end]
        is_first = begin in self._begins
        first = self._stream.special.start if is_first else int(tokens[begin - 1])
        return torch.cat([tokens.new_tensor([first]), targets[:-1]]), targets, True


class PackedDataset:
    """A part of the data: texts that are packed into rows.

    Args:
        texts: The texts.
        length: Number of tokens of a row.
        padding: Id of the padding token.
        counts: Bytes and words of the lines in ranges of positions, for scores; None without them.
    """

    def __init__(
        self, texts: Texts, length: int, padding: int, counts: LineCounts | None = None
    ) -> None:
        self.texts, self.length, self.padding, self.counts = texts, length, padding, counts

    def __len__(self) -> int:
        return len(self.texts.starts) - 1

    def loader(self, options: LoaderOptions) -> Loader:
        """Return a `PackedLoader` of these texts."""
        return PackedLoader(self, options)


class PackedLoader(Loader):
    """Packs texts into rows of a fixed length, ``batch_size`` rows in each batch.

    The length of a batch (``len(batch)``) is its number of *rows*; its weight is the number of
    target tokens. "documents" has the number of the text of each token, from 1 in each row, 0 for
    padding. A model that obeys it computes every text as if it were alone.

    With ``shuffle`` (train) the texts have another order in each epoch, so that they share a row
    with others; the number of rows may differ between epochs. Packing depends on seed and epoch
    only: a run can be resumed at any batch.

    Args:
        dataset: The texts and the length of rows.
        options: Number of rows, order, and the share of this process in each batch.

    Source:
        Krell et al., "Efficient Sequence Packing without Cross-contamination" (arXiv 2107.02027).
    """

    def __init__(self, dataset: PackedDataset, options: LoaderOptions) -> None:
        self.dataset = dataset
        self.options = options
        self.world_size = options.world_size
        # Cached, because the number of steps is asked for often.
        self._rows = lru_cache(maxsize=4)(self._new_rows)

    @property
    def steps_per_epoch(self) -> int:
        return self.steps_in(0)

    def steps_in(self, epoch: int) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self.rows(epoch)) // self.options.batch_size)

    def rows(self, epoch: int) -> Sequence[Sequence[int]]:
        """Return the numbers of the texts in each row of an epoch."""
        return self._rows(epoch if self.options.shuffle else 0)

    def _new_rows(self, epoch: int) -> list[list[int]]:
        starts, n = self.dataset.texts.starts, len(self.dataset)
        order = torch.arange(n)
        if self.options.shuffle:
            draws = keyed.generator(self.options.seed, "packing", epoch)
            order = torch.randperm(n, generator=draws)
        lengths = (starts[1:] - starts[:-1])[order].tolist()
        rows: list[list[int]] = []
        still_open: list[tuple[list[int], int]] = []  # rows with their free positions
        for text, length in zip(order.tolist(), lengths, strict=True):
            for at, (row, free) in enumerate(still_open):
                if length <= free:
                    row.append(text)
                    still_open[at] = row, free - length
                    break
            else:
                rows.append([text])
                still_open.append((rows[-1], self.dataset.length - length))
                if len(still_open) > _OPEN:
                    # The fullest row is closed: few texts fit into it.
                    still_open.remove(min(still_open, key=lambda each: each[1]))
        return rows

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        rows, size = self.rows(epoch), self.options.batch_size
        for first in range(start_step * size, len(rows), size):
            numbers = range(first, min(first + size, len(rows)))
            numbers = numbers[slice(*shard_bounds(0, len(numbers), self.options))]
            yield self._batch([rows[number] for number in numbers], list(numbers), epoch)

    def _batch(self, rows: Sequence[Sequence[int]], numbers: list[int], epoch: int) -> Batch:
        texts = self.dataset.texts
        bounds = [
            [(int(texts.starts[text]), int(texts.starts[text + 1])) for text in row] for row in rows
        ]
        # As long as the longest row, so that a few short texts cost little.
        longest = max((sum(end - begin for begin, end in row) for row in bounds), default=1)
        shape = len(rows), longest
        read = torch.full(shape, self.dataset.padding)
        targets = torch.full(shape, self.dataset.padding)
        documents = torch.zeros(shape, dtype=torch.int64)
        mask = torch.zeros(shape, dtype=torch.bool)
        for row, numbers_of_texts in enumerate(rows):
            at = 0
            for number, text in enumerate(numbers_of_texts, start=1):
                found = texts.part(text)
                part = row, slice(at, at := at + len(found[0]))
                read[part], targets[part], mask[part] = found
                documents[part] = number
        counts = None if self.options.shuffle else self.dataset.counts
        return Batch(
            {TOKENS: read},
            {NEXT: targets},
            {TOKENS: mask},
            task_inputs={DOCUMENTS: documents},
            weight=float(mask.sum()),
            indices=torch.tensor(numbers, dtype=torch.int64),
            epoch=epoch,
            extras={} if counts is None else counts.of_rows(bounds),
        )
