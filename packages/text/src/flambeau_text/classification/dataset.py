"""``EncodedTexts``: texts as token ids in memory with their targets, and their loader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, LoaderOptions, count_steps, shard_bounds
from flambeau.errors import InputError
from flambeau_text.bucketing import batches_of_similar_lengths, rounded_width
from flambeau_text.ragged_rows import RaggedRows

TOKENS, LENGTHS, TARGET = "tokens", "lengths", "target"
SECOND_TOKENS, SECOND_LENGTHS = "second_tokens", "second_lengths"
TOKEN_TYPES = "token_types"
"""Names in every batch: of the token ids, of the number of tokens of each text, and of the
targets; of the second texts of pairs; and, if both texts share a row, of each token's text."""

_NAMES = ((TOKENS, LENGTHS), (SECOND_TOKENS, SECOND_LENGTHS))


@dataclass(frozen=True)
class TokenRows:
    """The tokens of texts.

    Attributes:
        texts: The token ids of each text; of pairs, those of the first and of the second texts, or
            of both in one row.
        token_types: For pairs in one row the number of the text of each token; None without.
    """

    texts: tuple[RaggedRows, ...]
    token_types: RaggedRows | None = None


class EncodedTexts:
    """The texts of a part as token ids, with their targets.

    Args:
        rows: The tokens of the texts.
        targets: One target per text, ``(n, …)``.
        ids: Sample ids, int64 ``(n,)``.
        sample_weight: Weight of each text, ``(n,)``; None weighs all equally.
        truncated: Number of texts that were longer than the limit, of which tokens are left out.

    Attributes:
        texts: The token ids in ``rows``.
        lengths: Number of tokens of each text, of pairs that of both, int64 ``(n,)``.
        inputs: The lengths of the texts, by name: no features with which a linear model is fitted.
        targets: The targets by name.
        truncated: The argument ``truncated``.

    Raises:
        InputError: There are no texts.
    """

    def __init__(
        self,
        rows: TokenRows,
        targets: Tensor,
        ids: Tensor,
        sample_weight: Tensor | None = None,
        truncated: int = 0,
    ) -> None:
        if not len(ids):
            raise InputError("The data set has no texts. Give at least one.")
        self._tokens = rows
        self.texts: tuple[RaggedRows, ...] = rows.texts
        self.ids = ids
        self.lengths = torch.stack([each.lengths for each in self.texts]).sum(0)
        self.inputs = {LENGTHS: self.lengths}
        self.targets = {TARGET: targets}
        self.sample_weight = sample_weight
        self.truncated = truncated

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Tensor, epoch: int = 0, widths: Sequence[int] | None = None) -> Batch:
        """Return the texts at ``rows`` as a padded batch.

        Args:
            rows: Indices of the texts, int64 ``(n,)``.
            epoch: The epoch of the batch.
            widths: Padded length of the texts, and of the second texts of pairs; None uses the
                longest text.
        """
        weights = None if self.sample_weight is None else self.sample_weight[rows]
        total = float(len(rows)) if weights is None else float(weights.double().sum())
        return Batch(
            token_inputs(self._tokens, rows, widths),
            {TARGET: self.targets[TARGET][rows]},
            weight=total,
            indices=self.ids[rows],
            epoch=epoch,
            sample_weight=weights,
        )

    def loader(self, options: LoaderOptions) -> Loader:
        """Return a `TextLoader` of these texts."""
        return TextLoader(self, options)


def token_inputs(
    found: TokenRows, rows: Tensor, widths: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Return the inputs of a model: token ids padded at their ends, and lengths.

    Args:
        found: The tokens of the texts.
        rows: Indices of the texts, int64 ``(n,)``.
        widths: Padded length of each column of texts; None uses the longest.
    """
    inputs: dict[str, Tensor] = {}
    for index, (each, names) in enumerate(zip(found.texts, _NAMES, strict=False)):
        tokens, _ = each.padded(rows, None if widths is None else widths[index])
        inputs |= {names[0]: tokens, names[1]: each.lengths[rows]}
    if found.token_types is not None:
        types, valid = found.token_types.padded(rows, inputs[TOKENS].shape[1])
        inputs[TOKEN_TYPES] = types.masked_fill(~valid, 0)
    return inputs


class BatchedTexts(Protocol):
    """Texts as token ids that a `TextLoader` batches."""

    texts: tuple[RaggedRows, ...]
    lengths: Tensor

    def __len__(self) -> int: ...

    def batch(self, rows: Tensor, epoch: int = 0, widths: Sequence[int] | None = None) -> Batch:
        """Return the texts at ``rows``, padded to ``widths``."""
        ...


class TextLoader(Loader):
    """A loader of batches of ``EncodedTexts``.

    With ``shuffle`` (train) the texts of a batch have similar lengths, and differ from epoch to
    epoch. Without it (validation, test) the order is that of the data set.

    Args:
        dataset: The texts.
        options: Batch size, order, and the share of this process in each batch.
    """

    def __init__(self, dataset: BatchedTexts, options: LoaderOptions) -> None:
        self.dataset = dataset
        self.options = options
        self.world_size = options.world_size

    @property
    def steps_per_epoch(self) -> int:
        return count_steps(len(self.dataset), self.options)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for rows in self._rows(epoch)[start_step:]:
            own = slice(*shard_bounds(0, len(rows), self.options))
            # The width of the whole batch, so that all ranks compute equal shapes.
            widths = [rounded_width(each.longest(rows)) for each in self.dataset.texts]
            yield self.dataset.batch(rows[own], epoch, widths)

    def _rows(self, epoch: int) -> Sequence[Tensor]:
        size, n = self.options.batch_size, len(self.dataset)
        if self.options.shuffle:
            return batches_of_similar_lengths(
                self.dataset.lengths,
                size,
                self.options.seed,
                epoch,
                drop_last=self.options.drop_last,
            )
        # Fewer than all texts if the last, smaller batch is dropped.
        return torch.arange(min(self.steps_per_epoch * size, n)).split(size)
