"""``EncodedPairs``: token numbers of both sides in memory, and the loader that pads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, LoaderOptions, count_steps, share
from flambeau.errors import InputError
from flambeau_text.tokenization.tokenizer import BEGIN_ID, END_ID, PADDING_ID
from flambeau_text.translation.batches import Buckets, make_buckets, rounded

SOURCE, TARGET, REFERENCE = "source", "target", "reference"
"""Names of the only input and mask, and of the two targets, of every batch: what is learned, and
the text as it stands in the data (UTF-8 bytes), with which free translations are compared."""

_NO_BYTE = 0
"""Pads references: no text holds the character NUL."""


class Ragged:
    """Rows of different length in one tensor.

    Args:
        rows: Numbers of each row.
        padding: What stands after the end of shorter ones.

    Attributes:
        lengths: int64 ``(n,)``.
    """

    def __init__(self, rows: Sequence[Sequence[int]], padding: int = PADDING_ID) -> None:
        self.padding = padding
        self.lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        self._starts = torch.cat([torch.zeros(1, dtype=torch.int64), self.lengths.cumsum(0)])
        flat = np.fromiter((token for row in rows for token in row), dtype=np.int32)
        # One more, so that a place past the end of the last row exists.
        self._flat = torch.cat([torch.from_numpy(flat), torch.zeros(1, dtype=torch.int32)])

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(self, rows: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
        """The rows with padding at their ends, int64 ``(rows, width)``, and where they count.

        Args:
            rows: Which, int64 ``(n,)``.
            width: Places of each; None takes the longest's.
        """
        lengths = self.lengths[rows]
        width = self.longest(rows) if width is None else width
        places = torch.arange(width)
        mask = places < lengths.unsqueeze(1)
        at = (self._starts[rows].unsqueeze(1) + places).clamp_(max=len(self._flat) - 1)
        tokens = self._flat[at].to(torch.int64)
        return tokens.masked_fill_(~mask, self.padding), mask

    def longest(self, rows: Tensor) -> int:
        """The length of the longest of the rows."""
        return int(self.lengths[rows].max()) if len(rows) else 0


def source_rows(rows: Sequence[Sequence[int]]) -> Ragged:
    """Sources as the encoder reads them: each ends with the end token, so none is empty."""
    return Ragged([[*row, END_ID] for row in rows])


def target_rows(rows: Sequence[Sequence[int]]) -> Ragged:
    """Targets between begin and end: all but the last token are read, all but the first learned."""
    return Ragged([[BEGIN_ID, *row, END_ID] for row in rows])


def reference_rows(texts: Sequence[str]) -> Ragged:
    """Texts as their UTF-8 bytes."""
    return Ragged([text.replace("\0", "").encode() for text in texts], _NO_BYTE)


def text_of(reference: Tensor) -> str:
    """The text of one row of references."""
    return bytes(reference.tolist()).rstrip(b"\0").decode()


class EncodedPairs:
    """Samples of a part as token numbers, in memory.

    Args:
        sources: As ``source_rows`` gives them.
        targets: As ``target_rows`` gives them.
        references: As ``reference_rows`` gives them.
        ids: Sample numbers, int64 ``(n,)``.

    Raises:
        InputError: There are no samples.
    """

    def __init__(self, sources: Ragged, targets: Ragged, references: Ragged, ids: Tensor) -> None:
        if not len(ids):
            raise InputError("A data set of sentence pairs needs at least one, and got none.")
        self.sources, self.targets, self.references = sources, targets, references
        self.ids = ids
        # Tokens that a pair has on both sides, on average: what turns a batch size into a budget.
        self.mean_tokens = float((sources.lengths + targets.lengths - 1).double().mean())

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Tensor, epoch: int = 0, widths: tuple[int, int] | None = None) -> Batch:
        """The samples at ``rows`` (0 to n - 1), padded; it weighs as many as target tokens.

        Args:
            rows: Which, int64 ``(n,)``.
            epoch: The batch belongs to it.
            widths: Tokens of source and target to which all are padded; None takes the longest's.
        """
        widths = widths or (self.sources.longest(rows), self.targets.longest(rows))
        source, mask = self.sources.padded(rows, widths[0])
        target, _ = self.targets.padded(rows, widths[1])
        reference, _ = self.references.padded(rows)
        counted = self.targets.lengths[rows].sum() - len(rows)
        return Batch(
            {SOURCE: source},
            {TARGET: target, REFERENCE: reference.to(torch.uint8)},
            {SOURCE: mask},
            weight=float(counted),
            indices=self.ids[rows],
            epoch=epoch,
        )

    def loader(self, options: LoaderOptions) -> Loader:
        """Batches by a budget of tokens where they are shuffled, else as they come."""
        return PairLoader(self, options)


class PairLoader(Loader):
    """Batches of an ``EncodedPairs``.

    Shuffled (train): a batch holds up to ``batch_size`` times the tokens of an average pair, both
    sides and their padding counted, so ``batch_size`` sentences on average. Else (valid, test):
    ``batch_size`` sentences in their order.

    Args:
        dataset: The samples.
        options: Batch size, order, and this process's share of each batch.
    """

    def __init__(self, dataset: EncodedPairs, options: LoaderOptions) -> None:
        self.dataset = dataset
        self.options = options
        self.world_size = options.world_size
        self._buckets: Buckets | None = None
        if options.shuffle:
            budget = round(options.batch_size * dataset.mean_tokens)
            lengths = dataset.sources.lengths.numpy(), dataset.targets.lengths.numpy() - 1
            self._buckets = make_buckets(*lengths, budget)

    @property
    def steps_per_epoch(self) -> int:
        if self._buckets is None:
            return count_steps(len(self.dataset), self.options)
        return len(self._buckets)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for rows in self._rows(epoch)[start_step:]:
            mine = rows[slice(*share(0, len(rows), self.options))]
            yield self.dataset.batch(mine, epoch, self._widths(rows))

    def _widths(self, rows: Tensor) -> tuple[int, int] | None:
        """Of training batches rounded up, so that an epoch has few shapes."""
        if self._buckets is None:
            return None
        data = self.dataset
        # The decoder reads all tokens of a target but the last.
        read = rounded(np.array([data.sources.longest(rows), data.targets.longest(rows) - 1]))
        return int(read[0]), int(read[1]) + 1

    def _rows(self, epoch: int) -> Sequence[Tensor]:
        if self._buckets is not None:
            return self._buckets.of_epoch(self.options.seed, epoch)
        end = (
            self.steps_per_epoch * self.options.batch_size
        )  # less than n where the last is dropped
        return torch.arange(min(end, len(self.dataset))).split(self.options.batch_size)
