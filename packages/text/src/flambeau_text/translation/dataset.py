"""``EncodedPairs``: token ids of sentence pairs in memory, and the loader that batches them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, LoaderOptions, count_steps, shard_bounds
from flambeau.errors import InputError
from flambeau_text.bucketing import Buckets, make_buckets, round_up
from flambeau_text.ragged_rows import RaggedRows
from flambeau_text.tokenization.bpe_dropout import BpeDropout
from flambeau_text.tokenization.tokenizer import BEGIN_ID, END_ID

SOURCE, TARGET, REFERENCE = "source", "target", "reference"
"""Names in every batch: of the source tokens and their mask, of the target tokens, and (in
``extras``) of the reference texts, with which translations are compared."""

SOURCE_TOKENS = "source_tokens"
"""Name in ``extras``, in prediction, of a list with one function per source, which returns the
tokens of the source."""

RANK = "rank"
"""Name in ``extras`` of each pair's rank in a keyed random order of its part: the pairs with the
lowest ranks are a random sample, whatever the order of the corpus."""


def source_rows(rows: Sequence[Sequence[int]]) -> RaggedRows:
    """Return the sources as the encoder reads them: each source with an end token."""
    return RaggedRows([[*row, END_ID] for row in rows])


def target_rows(rows: Sequence[Sequence[int]]) -> RaggedRows:
    """Return the targets, each with a begin and an end token.

    The decoder reads all tokens but the last, and the loss is over all tokens but the first.
    """
    return RaggedRows([[BEGIN_ID, *row, END_ID] for row in rows])


class EncodedPairs:
    """The pairs of a part as token ids, in memory.

    Args:
        sources: Token ids of the sources, from ``source_rows``.
        targets: Token ids of the targets, from ``target_rows``.
        references: The text of each target.
        ids: Sample ids, int64 ``(n,)``.

    Raises:
        InputError: There are no pairs.
    """

    def __init__(
        self, sources: RaggedRows, targets: RaggedRows, references: Sequence[str], ids: Tensor
    ) -> None:
        if not len(ids):
            raise InputError("The data set has no sentence pairs. Give at least one.")
        self.sources, self.targets, self.references = sources, targets, references
        self.ids = ids
        order = torch.randperm(len(ids), generator=keyed.generator(0, "decoded sentences"))
        self.ranks: list[int] = order.tolist()
        # Mean number of tokens of a pair on both sides: batch_size times this is the token budget.
        self.mean_tokens = float((sources.lengths + targets.lengths - 1).double().mean())

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Tensor, epoch: int = 0, widths: tuple[int, int] | None = None) -> Batch:
        """Return the pairs at ``rows`` as a padded batch.

        The weight of the batch is its number of target tokens.

        Args:
            rows: Indices of the pairs, int64 ``(n,)``.
            epoch: The epoch of the batch.
            widths: Padded lengths of source and target; None uses the longest of each.
        """
        widths = widths or (self.sources.longest(rows), self.targets.longest(rows))
        source, mask = self.sources.padded(rows, widths[0])
        target, _ = self.targets.padded(rows, widths[1])
        target_tokens = self.targets.lengths[rows].sum() - len(rows)
        return Batch(
            {SOURCE: source},
            {TARGET: target},
            {SOURCE: mask},
            weight=float(target_tokens),
            indices=self.ids[rows],
            epoch=epoch,
            extras={
                REFERENCE: [self.references[row] for row in rows.tolist()],
                RANK: [self.ranks[row] for row in rows.tolist()],
            },
        )

    def drawn(self, rows: Tensor, seed: int, epoch: int) -> tuple[EncodedPairs, Tensor]:
        """Return the pairs of a train batch, and the indices of ``rows`` in them."""
        return self, rows

    def loader(self, options: LoaderOptions) -> Loader:
        """Return a `PairLoader` of these pairs."""
        return PairLoader(self, options)


class PairsWithDropout(EncodedPairs):
    """Pairs whose texts are split into other subwords in every epoch of training.

    The draws are keyed by seed, epoch and pair: they do not depend on batches or processes.

    Args:
        pairs: The pairs without dropout, which determine the batches.
        texts: The text of each source.
        dropout: The segmentation of sources and of targets.
    """

    def __init__(
        self, pairs: EncodedPairs, texts: Sequence[str], dropout: Sequence[BpeDropout]
    ) -> None:
        super().__init__(pairs.sources, pairs.targets, pairs.references, pairs.ids)
        self.texts, self.dropout = texts, dropout

    def drawn(self, rows: Tensor, seed: int, epoch: int) -> tuple[EncodedPairs, Tensor]:
        at: list[int] = rows.tolist()
        ids = self.ids[rows]

        def encoded(side: int, texts: Sequence[str]) -> list[list[int]]:
            keys = [keyed.key(seed, "bpe dropout", epoch, each, side) for each in ids.tolist()]
            pairs = zip(keys, texts, strict=True)
            return [self.dropout[side].encode(text, random.Random(key)) for key, text in pairs]

        references = [self.references[row] for row in at]
        sources = encoded(0, [self.texts[row] for row in at])
        targets = encoded(1, references)
        found = EncodedPairs(source_rows(sources), target_rows(targets), references, ids)
        found.ranks = [self.ranks[row] for row in at]
        return found, torch.arange(len(at))


class PairLoader(Loader):
    """A loader of batches of ``EncodedPairs``.

    With ``shuffle`` (train) a batch has at most ``batch_size`` times the tokens of an average pair,
    counting both sides and padding, which is about ``batch_size`` pairs. Without ``shuffle``
    (validation, test) a batch has ``batch_size`` pairs, in the order of the data set.

    Args:
        dataset: The pairs.
        options: Batch size, order, and the share of this process in each batch.
    """

    def __init__(self, dataset: EncodedPairs, options: LoaderOptions) -> None:
        self.dataset = dataset
        self.options = options
        self.world_size = options.world_size
        self._buckets: Buckets | None = None
        if options.shuffle:
            budget = round(options.batch_size * dataset.mean_tokens)
            targets = dataset.targets.lengths.numpy() - 1
            self._buckets = make_buckets(targets, budget, dataset.sources.lengths.numpy())

    @property
    def steps_per_epoch(self) -> int:
        if self._buckets is None:
            return count_steps(len(self.dataset), self.options)
        return len(self._buckets)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for rows in self._rows(epoch)[start_step:]:
            own = slice(*shard_bounds(0, len(rows), self.options))
            if self._buckets is None:
                yield self.dataset.batch(rows[own], epoch)
            else:
                data, at = self.dataset.drawn(rows, self.options.seed, epoch)
                yield data.batch(at[own], epoch, self._widths(data, at))

    def _widths(self, data: EncodedPairs, rows: Tensor) -> tuple[int, int]:
        """Return rounded widths for training batches, so that an epoch has few shapes."""
        # The decoder reads all tokens of a target but the last.
        read = round_up(np.array([data.sources.longest(rows), data.targets.longest(rows) - 1]))
        return int(read[0]), int(read[1]) + 1

    def _rows(self, epoch: int) -> Sequence[Tensor]:
        if self._buckets is not None:
            return self._buckets.batches(self.options.seed, epoch)
        # Fewer than all pairs if the last, smaller batch is dropped.
        end = self.steps_per_epoch * self.options.batch_size
        return torch.arange(min(end, len(self.dataset))).split(self.options.batch_size)
