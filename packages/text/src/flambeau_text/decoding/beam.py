"""``beam_search``: the best few beginnings side by side, for a whole batch at once.

A hypothesis that ends leaves the beam but stays a candidate, and its place in the beam is not
filled again: with size 1 this is greedy search. A source is done when no living beginning can
still beat what has ended, not when the best one ends: longer sentences are divided by more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flambeau_text.decoding.blocking import block_repeats
from flambeau_text.decoding.decoded import Decoded, log_probabilities, only_end
from flambeau_text.decoding.penalties import coverage_penalty
from flambeau_text.decoding.strategy import Beam
from flambeau_text.models.seq2seq import Memory, Seq2Seq, select
from flambeau_text.tokenization.tokenizer import BEGIN_ID, END_ID, PADDING_ID


def beam_search(model: Seq2Seq, memory: Memory, limit: Tensor, beam: Beam) -> Decoded:
    """The best sentences of each source.

    Args:
        model: In eval mode.
        memory: Of the sources.
        limit: Words that each may have before its end, int64 ``(batch,)``; at the limit every
            beginning is ended, and the end's probability counts as anywhere.
        beam: Size, penalties and what else.
    """
    living = _Living.begin(model, memory, limit, beam.size)
    ended = _Ended(len(limit), beam, int(limit.max()) + 1, memory.mask.shape[1])
    for place in range(int(limit.max()) + 1):
        living = _advance(model, living, ended, beam, place)
        keep = _can_improve(living, ended, beam)
        living.scores.masked_fill_(~keep.unsqueeze(1), -torch.inf)
        if not bool(keep.any()):
            break
        if 2 * int(keep.sum()) <= len(keep):
            living = living.only(keep)
    return ended.best(beam.n_best)


@dataclass
class _Living:
    """Beginnings that go on: ``size`` for each source that is not done.

    Attributes:
        sources: Which sources these are, int64 ``(rows,)``.
        limit: Of each, int64 ``(rows,)``.
        scores: Log-probabilities, ``(rows, size)``; -inf where a place is empty.
        words: int64 ``(rows * size, length)``, the begin token first.
        state: The model's, for ``rows * size`` beginnings.
        attended: ``(rows * size, length - 1, source)``, or None where the model gives none.
        mask: bool ``(rows * size, source)``.
    """

    sources: Tensor
    limit: Tensor
    scores: Tensor
    words: Tensor
    state: Any
    attended: Tensor | None
    mask: Tensor

    @staticmethod
    def begin(model: Seq2Seq, memory: Memory, limit: Tensor, size: int) -> _Living:
        device, batch = memory.mask.device, len(limit)
        each = torch.arange(batch, device=device).repeat_interleave(size)
        state = select(model.init_state(memory), each)
        scores = torch.full((batch, size), -torch.inf, device=device)
        scores[:, 0] = 0.0
        if memory.values.dtype == torch.float64:
            scores = scores.double()
        words = torch.full((batch * size, 1), BEGIN_ID, device=device)
        mask = memory.mask[each]
        nothing = memory.values.new_zeros(batch * size, 0, mask.shape[1])
        return _Living(
            torch.arange(batch, device=device), limit, scores, words, state, nothing, mask
        )

    def only(self, keep: Tensor) -> _Living:
        """Those of the sources that are True in ``keep``, bool ``(rows,)``."""
        size = self.scores.shape[1]
        rows = keep.nonzero().squeeze(1)
        each = (rows.unsqueeze(1) * size + torch.arange(size, device=rows.device)).flatten()
        return _Living(
            self.sources[rows],
            self.limit[rows],
            self.scores[rows],
            self.words[each],
            select(self.state, each),
            None if self.attended is None else self.attended[each],
            self.mask[each],
        )


class _Ended:
    """Sentences that have ended, up to ``size`` a source.

    Args:
        batch: Sources.
        beam: Its size.
        longest: Words that one can have, its end included.
        source: Positions of the longest source.
    """

    def __init__(self, batch: int, beam: Beam, longest: int, source: int) -> None:
        self.size = beam.size
        self.counts = torch.zeros(batch, dtype=torch.int64)
        self.scores = torch.full((batch, beam.size), -torch.inf, dtype=torch.float64)
        self.likelihoods = self.scores.clone()
        self.tokens = torch.full((batch, beam.size, longest), PADDING_ID)
        self.attention: Tensor | None = torch.zeros(batch, beam.size, longest, source)

    def to(self, like: Tensor) -> None:
        """Onto the device and into the dtype of the model's scores."""
        if self.scores.device != like.device or self.scores.dtype != like.dtype:
            self.counts, self.tokens = self.counts.to(like.device), self.tokens.to(like.device)
            self.scores, self.likelihoods = self.scores.to(like), self.likelihoods.to(like)
            if self.attention is not None:
                self.attention = self.attention.to(like)

    def add(
        self, sources: Tensor, places: Tensor, found: dict[str, Tensor], attended: Tensor | None
    ) -> None:
        """Writes sentences, one a row, into the places of their sources."""
        length = found["words"].shape[1]
        self.tokens[sources, places, :length] = found["words"]
        self.scores[sources, places] = found["scores"]
        self.likelihoods[sources, places] = found["likelihoods"]
        if attended is None:
            self.attention = None
        elif self.attention is not None:
            self.attention[sources, places, :length] = attended.to(self.attention.dtype)

    def best(self, n: int) -> Decoded:
        """The ``n`` best of each source, the best first."""
        order = self.scores.argsort(dim=1, descending=True, stable=True)[:, :n]
        rows = torch.arange(len(order), device=order.device).unsqueeze(1)
        tokens = self.tokens[rows, order]
        longest = max(1, int((tokens != PADDING_ID).sum(2).max()))
        attention = None if self.attention is None else self.attention[rows, order][:, :, :longest]
        return Decoded(
            tokens[:, :, :longest],
            self.scores[rows, order],
            self.likelihoods[rows, order],
            attention,
        )


def _advance(model: Seq2Seq, living: _Living, ended: _Ended, beam: Beam, place: int) -> _Living:
    """One word on: what ends goes to ``ended``, the rest is returned."""
    rows, size = living.scores.shape
    logits, state, attention = model.step(living.words[:, -1], living.state)
    found = log_probabilities(logits)
    ended.to(found)
    if beam.no_repeat:
        found = block_repeats(found, living.words[:, 1:], beam.no_repeat)
    if place < beam.min_words:
        found[:, END_ID] = -torch.inf
    found = only_end(found, (living.limit <= place).repeat_interleave(size))
    vocabulary = found.shape[1]
    candidates = living.scores.to(found.dtype).unsqueeze(2) + found.view(rows, size, vocabulary)
    scores, chosen = candidates.view(rows, -1).topk(size, dim=1)
    # Each sentence that has ended has taken one of the places.
    room = size - ended.counts[living.sources]
    ranks = torch.arange(size, device=scores.device)
    scores = scores.masked_fill(ranks >= room.unsqueeze(1), -torch.inf)
    words, before = chosen % vocabulary, chosen // vocabulary
    origin = (torch.arange(rows, device=before.device).unsqueeze(1) * size + before).flatten()
    sequences = torch.cat([living.words[origin], words.view(-1, 1)], 1)
    attended = None
    if attention is not None and living.attended is not None:
        attended = torch.cat([living.attended, attention.unsqueeze(1).to(living.attended)], 1)
        attended = attended[origin]
    ends = (words == END_ID) & (scores > -torch.inf)
    after = _Living(
        living.sources,
        living.limit,
        scores.masked_fill(ends, -torch.inf),
        sequences,
        select(state, origin),
        attended,
        living.mask,
    )
    _keep_ended(after, ended, beam, ends, scores)
    return after


def _keep_ended(
    living: _Living, ended: _Ended, beam: Beam, ends: Tensor, likelihoods: Tensor
) -> None:
    """Scores the sentences that have just ended and keeps them."""
    at, which = ends.nonzero(as_tuple=True)
    if not len(at):
        return
    flat = at * ends.shape[1] + which
    sources = living.sources[at]
    places = ended.counts[sources] + (ends.cumsum(1) - 1)[at, which]
    words = living.words[flat, 1:]
    scores = likelihoods[at, which] / beam.divisor(words.shape[1])
    attended = None if living.attended is None else living.attended[flat]
    if beam.coverage and attended is not None:
        seen = attended.sum(1).to(scores.dtype)
        scores = scores + beam.coverage * coverage_penalty(seen, living.mask[flat])
    parts = {"words": words, "scores": scores, "likelihoods": likelihoods[at, which]}
    ended.add(sources, places, parts, attended)
    ended.counts.index_add_(0, sources, torch.ones_like(sources))


def _can_improve(living: _Living, ended: _Ended, beam: Beam) -> Tensor:
    """Whether a living beginning of each source may still enter its best, bool ``(rows,)``.

    A log-probability only falls, and the largest divisor is that of the longest sentence; coverage
    can come to 0 at best.
    """
    longest = {int(n): beam.divisor(int(n) + 1.0) for n in living.limit.unique()}
    divisors = [max(longest[int(n)], beam.divisor(1.0)) for n in living.limit]
    best = living.scores.max(1).values
    attainable = best / torch.tensor(divisors, dtype=best.dtype, device=best.device)
    ranked = ended.scores[living.sources].topk(beam.n_best, dim=1).values[:, -1]
    return (best > -torch.inf) & (attainable > ranked)
