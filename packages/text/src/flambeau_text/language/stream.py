"""``TokenStream``: documents as one sequence of tokens, and the loader that cuts it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, LoaderOptions, shard_bounds
from flambeau.errors import InputError
from flambeau_text.text_lines import lines_of
from flambeau_text.tokenization.tokenizer import SpecialIds, Tokenizer

TOKENS, NEXT = "tokens", "next"
"""Names in every batch: of the tokens that the model reads and their mask, and of the token after
each of them."""

BYTES, WORDS = "bytes", "words"
"""Names in ``extras`` of the UTF-8 bytes and of the words (with one for each line end) of the lines
that end in each row, for scores that do not depend on the tokenizer."""

_SHORT_SHARE = 0.05
_DEVIATION = 5.0
_SHORTEST = 5


@dataclass(frozen=True)
class TokenStream:
    """The tokens of documents, one after the other.

    Each line ends with an end token; with a tokenizer that keeps line feeds, each document does.

    Attributes:
        tokens: int32 ``(n,)``.
        starts: Position of the first token of each document, and the end of the last, int64
            ``(documents + 1,)``.
        line_bytes: UTF-8 bytes before each end token, with one for the end of each line, int64
            ``(end tokens,)``.
        line_words: Words before each end token, with one for the end of each line, int64
            ``(end tokens,)``.
        special: Ids of start, end and padding.

    Raises:
        InputError: There are no tokens.
    """

    tokens: Tensor
    starts: Tensor
    line_bytes: npt.NDArray[np.int64]
    line_words: npt.NDArray[np.int64]
    special: SpecialIds = field(default_factory=SpecialIds)

    def __post_init__(self) -> None:
        if not len(self.tokens):
            raise InputError("The documents have no tokens. Give at least one line of text.")

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.starts) - 1


class StreamDataset:
    """A part of the data: its stream, cut into chunks of about ``bptt`` tokens.

    Args:
        stream: The tokens.
        bptt: Number of tokens of a chunk.
        varies: Whether the lengths of train chunks vary, so that tokens are not always at the same
            distance from the start of the gradient.
    """

    def __init__(self, stream: TokenStream, bptt: int = 70, *, varies: bool = True) -> None:
        self.stream = stream
        self.bptt = bptt
        self.varies = varies

    def __len__(self) -> int:
        return len(self.stream)

    def loader(self, options: LoaderOptions) -> Loader:
        """Return a `StreamLoader` of these tokens."""
        return StreamLoader(self, options)


class StreamLoader(Loader):
    """Cuts a stream of documents into ``batch_size`` rows, and the rows into chunks.

    Row i of a batch continues row i of the batch before, so that a model can carry its state. Every
    token is the target of exactly one position in an epoch, whatever the number of rows: the token
    before it is read first, at the start of the stream an end token. Rows differ in length by at
    most one; the missing position in the last chunk is masked.

    With ``shuffle`` (train) the documents have another order in each epoch, and the lengths of the
    chunks vary: ``bptt``, or with a probability of 0.05 half of it, plus a normal draw with a
    standard deviation of 5, at least 5. The learning rate of a step is scaled by the length of its
    chunk over ``bptt``. Without ``shuffle`` the documents are in the order of the part and the
    chunks equally long.

    Args:
        dataset: The stream and the length of chunks.
        options: Number of rows, order, and the share of this process in each batch.

    Source:
        Merity et al. (arXiv 1708.02182), section 5 for the lengths; the documents, in place of
        whole epochs, are shuffled as in ULMFiT (arXiv 1801.06146).
    """

    is_stream = True

    def __init__(self, dataset: StreamDataset, options: LoaderOptions) -> None:
        self.dataset = dataset
        self.options = options
        self.world_size = options.world_size
        n = len(dataset.stream.tokens)
        # A short text has fewer rows, so that each has a token.
        self.rows = max(1, min(options.batch_size, n))
        self.row_length = -(-n // self.rows)
        # Cached, because the number of steps is asked for often.
        self._lengths = lru_cache(maxsize=4)(self._new_lengths)

    @property
    def steps_per_epoch(self) -> int:
        return self.steps_in(0)

    def steps_in(self, epoch: int) -> int:
        """Return the number of chunks in an epoch."""
        return len(self._lengths(epoch if self._varies else 0))

    @property
    def _varies(self) -> bool:
        return self.options.shuffle and self.dataset.varies

    def _new_lengths(self, epoch: int) -> list[int]:
        """Return the lengths of an epoch's chunks."""
        bptt, left = self.dataset.bptt, self.row_length
        lengths: list[int] = []
        draws = keyed.generator(self.options.seed, "bptt", epoch) if self._varies else None
        while left > 0:
            length = bptt
            if draws is not None:
                short = float(torch.rand((), generator=draws)) < _SHORT_SHARE
                spread = _DEVIATION * float(torch.randn((), generator=draws))
                length = max(_SHORTEST, round((bptt / 2 if short else bptt) + spread))
            lengths.append(min(length, left))
            left -= length
        return lengths

    def order(self, epoch: int) -> Tensor:
        """Return the order of the documents in an epoch, int64 ``(documents,)``."""
        n = len(self.dataset)
        if not self.options.shuffle:
            return torch.arange(n)
        return torch.randperm(
            n, generator=keyed.generator(self.options.seed, "document order", epoch)
        )

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        lengths = self._lengths(epoch if self._varies else 0)
        tokens = _OrderedTokens(self.dataset.stream, self.order(epoch))
        n = len(self.dataset.stream.tokens)
        # Row r has the targets from starts[r] to starts[r + 1]; the longer rows come first.
        starts = torch.arange(self.rows + 1) * (n // self.rows)
        starts += torch.arange(self.rows + 1).clamp(max=n % self.rows)
        own = slice(*shard_bounds(0, self.rows, self.options))
        begins, ends = starts[:-1][own].unsqueeze(1), starts[1:][own].unsqueeze(1)
        special = self.dataset.stream.special
        counts = None if self.options.shuffle else LineCounts(self.dataset.stream)
        done = sum(lengths[:start_step])
        for length in lengths[start_step:]:
            at = begins + torch.arange(done, done + length)
            mask = at < ends
            at = at.minimum(ends - 1)
            pad = ~mask
            extras = {} if counts is None else counts.between(begins + done, at[:, -1:] + 1)
            # Each target, and before the first of them the token that is read first.
            found = tokens.at(torch.cat([begins + done - 1, at], 1))
            yield Batch(
                {TOKENS: found[:, :-1].masked_fill(pad, special.padding)},
                {NEXT: found[:, 1:].masked_fill(pad, special.padding)},
                {TOKENS: mask},
                weight=float(mask.sum()),
                lr_scale=length / self.dataset.bptt if self.options.shuffle else 1.0,
                indices=torch.arange(self.rows)[own],
                epoch=epoch,
                extras=extras,
            )
            done += length


class _OrderedTokens:
    """The tokens of a stream whose documents are in another order, without a copy of the stream."""

    def __init__(self, stream: TokenStream, order: Tensor) -> None:
        self._tokens, self._start = stream.tokens, stream.special.start
        lengths = (stream.starts[1:] - stream.starts[:-1])[order]
        self._ends = lengths.cumsum(0)
        self._shift = stream.starts[:-1][order] - (self._ends - lengths)

    def at(self, positions: Tensor) -> Tensor:
        """Return the tokens at positions of the order, int64; the start token at position -1."""
        document = torch.searchsorted(self._ends, positions, right=True)
        found = self._tokens[(positions + self._shift[document]).clamp(min=0)]
        return found.to(torch.int64).masked_fill_(positions < 0, self._start)


class LineCounts:
    """Counts bytes and words of the lines that end in a range of positions of a stream."""

    def __init__(self, stream: TokenStream) -> None:
        self._ends = (stream.tokens == stream.special.end).nonzero().squeeze(1)
        self._sums = {
            name: torch.from_numpy(np.concatenate([[0], counts.cumsum()]))
            for name, counts in ((BYTES, stream.line_bytes), (WORDS, stream.line_words))
        }

    def between(self, begins: Tensor, ends: Tensor) -> dict[str, list[int]]:
        """Return the counts for positions ``begins`` to ``ends - 1``, each ``(rows, 1)``."""
        first, last = (torch.searchsorted(self._ends, each.squeeze(1)) for each in (begins, ends))
        last = last.maximum(first)
        return {name: (sums[last] - sums[first]).tolist() for name, sums in self._sums.items()}

    def of_rows(self, rows: Sequence[Sequence[tuple[int, int]]]) -> dict[str, list[int]]:
        """Return the counts of rows that each have several ranges of positions."""
        parts = [part for row in rows for part in row]
        begins, ends = torch.tensor(parts, dtype=torch.int64).view(-1, 2).t().contiguous()
        counts = self.between(begins.unsqueeze(1), ends.unsqueeze(1))
        of_part = {name: iter(found) for name, found in counts.items()}
        return {
            name: [sum(next(found) for _ in row) for row in rows] for name, found in of_part.items()
        }


def stream_of(
    tokens: Tensor, lengths: Tensor, texts: Sequence[str], tokenizer: Tokenizer | None = None
) -> TokenStream:
    """Return the stream of encoded documents.

    Args:
        tokens: The token ids of all lines (or documents), each with an end token, int32 ``(n,)``.
        lengths: Number of tokens of each document, int64 ``(documents,)``.
        texts: The text of each document.
        tokenizer: The tokenizer; None for one with the special tokens of flambeau's vocabularies.
    """
    # Generators, because a list of all lines would need as much memory as the texts.
    backward = tokenizer is not None and tokenizer.backward
    order = slice(None, None, -1 if backward else 1)
    size = (
        len(line.encode("utf-8", "surrogatepass")) + 1
        for text in texts
        for line in lines_of(text)[order]
    )
    words = (len(line.split()) + 1 for text in texts for line in lines_of(text)[order])
    counts = np.fromiter(size, np.int64), np.fromiter(words, np.int64)
    if tokenizer is not None and tokenizer.keeps_lines:
        n_lines = np.fromiter((len(lines_of(text)) for text in texts), np.int64, len(texts))
        ends = n_lines.cumsum() - n_lines
        counts = np.add.reduceat(counts[0], ends), np.add.reduceat(counts[1], ends)
    return TokenStream(
        tokens,
        torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        *counts,
        SpecialIds() if tokenizer is None else tokenizer.special,
    )
