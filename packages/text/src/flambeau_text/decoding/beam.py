"""``beam_search``: beam search for a whole batch at once.

A hypothesis that ends leaves the beam but remains a candidate for the result, and its slot in the
beam is not filled again; with size 1 this is greedy search. The search of a source is finished when
no active hypothesis can reach a better score than those that have ended. It continues after the
best hypothesis ends, because the length penalty can give a longer one a better score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flambeau_text.decoding.ngram_blocking import block_repeated_ngrams
from flambeau_text.decoding.penalties import coverage_penalty
from flambeau_text.decoding.result import SearchResult
from flambeau_text.decoding.strategy import Beam
from flambeau_text.decoding.token_scores import allow_only_end, log_probabilities
from flambeau_text.models.seq2seq import Memory, Seq2Seq, check_batch_axis, select_hypotheses
from flambeau_text.tokenization.tokenizer import BEGIN_ID, END_ID, PADDING_ID


def beam_search(model: Seq2Seq, memory: Memory, limit: Tensor, beam: Beam) -> SearchResult:
    """Return the best sentences of each source.

    Args:
        model: The model, in eval mode.
        memory: The encoded sources.
        limit: Maximum number of tokens before the end token, int64 ``(batch,)``. A hypothesis that
            reaches it is ended; the probability of its end token counts as usual.
        beam: Size, penalties and other settings.

    Raises:
        InputError: The batch is not the first axis of a tensor in the decoder's state.
    """
    active = _Active.begin(model, memory, limit, beam.size)
    ended = _Ended(len(limit), beam, int(limit.max()) + 1, memory.mask.shape[1])
    for position in range(int(limit.max()) + 1):
        active = _advance(model, active, ended, beam, position)
        keep = _can_improve(active, ended, beam)
        active.scores.masked_fill_(~keep.unsqueeze(1), -torch.inf)
        if not bool(keep.any()):
            break
        if 2 * int(keep.sum()) <= len(keep):
            active = active.only(keep)
    return ended.best(beam.n_best)


@dataclass
class _Active:
    """The active hypotheses: ``size`` for each unfinished source.

    Attributes:
        sources: Indices of the sources, int64 ``(rows,)``.
        limit: Maximum number of tokens of each source, int64 ``(rows,)``.
        scores: Log-probabilities, ``(rows, size)``; -inf in an empty slot.
        tokens: int64 ``(rows * size, length)``, the begin token first.
        state: The decoder state of ``rows * size`` hypotheses; what is `PerSource` in it, of
            ``rows`` sources.
        attended: ``(rows * size, length - 1, source)``, or None if the model returns no attention.
        mask: bool ``(rows, source)``.
    """

    sources: Tensor
    limit: Tensor
    scores: Tensor
    tokens: Tensor
    state: Any
    attended: Tensor | None
    mask: Tensor

    @staticmethod
    def begin(model: Seq2Seq, memory: Memory, limit: Tensor, size: int) -> _Active:
        device, batch = memory.mask.device, len(limit)
        each = torch.arange(batch, device=device).repeat_interleave(size)
        state = model.init_state(memory)
        check_batch_axis(state, batch)
        state = select_hypotheses(state, each)
        scores = torch.full((batch, size), -torch.inf, device=device)
        scores[:, 0] = 0.0
        if memory.values.dtype == torch.float64:
            scores = scores.double()
        tokens = torch.full((batch * size, 1), BEGIN_ID, device=device)
        nothing = memory.values.new_zeros(batch * size, 0, memory.mask.shape[1])
        return _Active(
            torch.arange(batch, device=device), limit, scores, tokens, state, nothing, memory.mask
        )

    def only(self, keep: Tensor) -> _Active:
        """Return the hypotheses of the sources for which ``keep``, bool ``(rows,)``, is True."""
        size = self.scores.shape[1]
        rows = keep.nonzero().squeeze(1)
        each = (rows.unsqueeze(1) * size + torch.arange(size, device=rows.device)).flatten()
        return _Active(
            self.sources[rows],
            self.limit[rows],
            self.scores[rows],
            self.tokens[each],
            select_hypotheses(self.state, each, rows),
            None if self.attended is None else self.attended[each],
            self.mask[rows],
        )


class _Ended:
    """The ended sentences, up to ``size`` per source.

    Args:
        batch: Number of sources.
        beam: The strategy, of which only the size is used.
        longest: Maximum number of tokens of a sentence, the end token included.
        source: Length of the longest source.
    """

    def __init__(self, batch: int, beam: Beam, longest: int, source: int) -> None:
        self.size = beam.size
        self.counts = torch.zeros(batch, dtype=torch.int64)
        self.scores = torch.full((batch, beam.size), -torch.inf, dtype=torch.float64)
        self.log_probabilities = self.scores.clone()
        self.tokens = torch.full((batch, beam.size, longest), PADDING_ID)
        self.attention: Tensor | None = torch.zeros(
            batch, beam.size, longest, source, dtype=torch.float64
        )

    def to(self, like: Tensor) -> None:
        """Move the tensors to the device and the dtype of the model's scores."""
        if self.scores.device != like.device or self.scores.dtype != like.dtype:
            self.counts, self.tokens = self.counts.to(like.device), self.tokens.to(like.device)
            self.scores = self.scores.to(like)
            self.log_probabilities = self.log_probabilities.to(like)
            if self.attention is not None:
                self.attention = self.attention.to(like)

    def add(
        self, sources: Tensor, slots: Tensor, found: dict[str, Tensor], attended: Tensor | None
    ) -> None:
        """Store one sentence per row in the given slots of the given sources."""
        length = found["tokens"].shape[1]
        self.tokens[sources, slots, :length] = found["tokens"]
        self.scores[sources, slots] = found["scores"]
        self.log_probabilities[sources, slots] = found["log_probabilities"]
        if attended is None:
            self.attention = None
        elif self.attention is not None:
            self.attention[sources, slots, :length] = attended.to(self.attention.dtype)

    def best(self, n: int) -> SearchResult:
        """Return the ``n`` best sentences of each source, best first."""
        order = self.scores.argsort(dim=1, descending=True, stable=True)[:, :n]
        rows = torch.arange(len(order), device=order.device).unsqueeze(1)
        tokens = self.tokens[rows, order]
        longest = max(1, int((tokens != PADDING_ID).sum(2).max()))
        attention = None if self.attention is None else self.attention[rows, order][:, :, :longest]
        return SearchResult(
            tokens[:, :, :longest],
            self.scores[rows, order],
            self.log_probabilities[rows, order],
            attention,
        )


def _advance(model: Seq2Seq, active: _Active, ended: _Ended, beam: Beam, position: int) -> _Active:
    """Extend the hypotheses by a token, move ended ones to ``ended``, return the active ones."""
    rows, size = active.scores.shape
    logits, state, attention = model.step(active.tokens[:, -1], active.state)
    found = log_probabilities(logits)
    ended.to(found)
    if beam.no_repeat_ngram_size:
        found = block_repeated_ngrams(found, active.tokens[:, 1:], beam.no_repeat_ngram_size)
    if position < beam.min_length:
        found[:, END_ID] = -torch.inf
    found = allow_only_end(found, (active.limit <= position).repeat_interleave(size))
    vocabulary = found.shape[1]
    candidates = active.scores.to(found.dtype).unsqueeze(2) + found.view(rows, size, vocabulary)
    scores, chosen = candidates.view(rows, -1).topk(size, dim=1)
    # Each sentence that has ended uses one of the slots.
    room = size - ended.counts[active.sources]
    ranks = torch.arange(size, device=scores.device)
    scores = scores.masked_fill(ranks >= room.unsqueeze(1), -torch.inf)
    tokens, before = chosen % vocabulary, chosen // vocabulary
    origin = (torch.arange(rows, device=before.device).unsqueeze(1) * size + before).flatten()
    sequences = torch.cat([active.tokens[origin], tokens.view(-1, 1)], 1)
    attended = None
    if attention is not None and active.attended is not None:
        attended = torch.cat([active.attended, attention.unsqueeze(1).to(active.attended)], 1)
        attended = attended[origin]
    ends = (tokens == END_ID) & (scores > -torch.inf)
    after = _Active(
        active.sources,
        active.limit,
        scores.masked_fill(ends, -torch.inf),
        sequences,
        select_hypotheses(state, origin),
        attended,
        active.mask,
    )
    _store_ended(after, ended, beam, ends, scores)
    return after


def _store_ended(
    active: _Active, ended: _Ended, beam: Beam, ends: Tensor, log_probs: Tensor
) -> None:
    """Score the sentences that have just ended and store them."""
    at, which = ends.nonzero(as_tuple=True)
    if not len(at):
        return
    flat = at * ends.shape[1] + which
    sources = active.sources[at]
    slots = ended.counts[sources] + (ends.cumsum(1) - 1)[at, which]
    tokens = active.tokens[flat, 1:]
    scores = log_probs[at, which] / beam.divisor(tokens.shape[1])
    attended = None if active.attended is None else active.attended[flat]
    if beam.coverage_penalty and attended is not None:
        total = attended.sum(1).to(scores.dtype)
        scores = scores + beam.coverage_penalty * coverage_penalty(total, active.mask[at])
    parts = {"tokens": tokens, "scores": scores, "log_probabilities": log_probs[at, which]}
    ended.add(sources, slots, parts, attended)
    ended.counts.index_add_(0, sources, torch.ones_like(sources))


def _can_improve(active: _Active, ended: _Ended, beam: Beam) -> Tensor:
    """Return whether an active hypothesis can still be among the ``n_best``, bool ``(rows,)``.

    The best score that it can reach has a bound: a log-probability only decreases, the largest
    divisor is that of the longest sentence, and the coverage penalty is at best 0.
    """
    longest = {int(n): beam.divisor(int(n) + 1.0) for n in active.limit.unique()}
    divisors = [max(longest[int(n)], beam.divisor(1.0)) for n in active.limit]
    best = active.scores.max(1).values
    attainable = best / torch.tensor(divisors, dtype=best.dtype, device=best.device)
    ranked = ended.scores[active.sources].topk(beam.n_best, dim=1).values[:, -1]
    return (best > -torch.inf) & (attainable > ranked)
