"""``constrained_search``: beam search for sentences that contain given phrases.

Hypotheses compete only with others that contain the same number of phrase tokens. In a single beam,
hypotheses without any phrase would be more probable and crowd out the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau_text.decoding.ngram_blocking import block_repeated_ngrams
from flambeau_text.decoding.penalties import coverage_penalty
from flambeau_text.decoding.result import SearchResult
from flambeau_text.decoding.strategy import Beam
from flambeau_text.decoding.token_scores import log_probabilities
from flambeau_text.models.seq2seq import Memory, Seq2Seq, select_hypotheses
from flambeau_text.tokenization.tokenizer import BEGIN_ID, END_ID, PADDING_ID

Phrases = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class PhraseProgress:
    """The progress of a hypothesis: which of the required phrases it contains.

    Attributes:
        phrases: Token ids of each phrase.
        met: Whether the hypothesis contains each phrase.
        current: Index of the phrase that the hypothesis's last tokens begin, or -1.
        matched: Number of tokens of the current phrase so far.
    """

    phrases: Phrases
    met: tuple[bool, ...]
    current: int = -1
    matched: int = 0

    @property
    def count(self) -> int:
        """Number of phrase tokens in the hypothesis."""
        pairs = zip(self.phrases, self.met, strict=True)
        return sum(len(phrase) for phrase, met in pairs if met) + self.matched

    @property
    def remaining(self) -> int:
        """Number of phrase tokens still missing."""
        return sum(map(len, self.phrases)) - self.count

    @property
    def next_tokens(self) -> list[int]:
        """Token ids that continue the current phrase, or begin a phrase that is missing."""
        if self.current >= 0:
            return [self.phrases[self.current][self.matched]]
        pairs = zip(self.phrases, self.met, strict=True)
        return sorted({phrase[0] for phrase, met in pairs if not met})

    def after(self, token: int) -> PhraseProgress:
        """Return the progress after ``token``; a phrase that it interrupts must start again."""
        if self.current >= 0 and self.phrases[self.current][self.matched] == token:
            return self._matching(self.current, self.matched + 1)
        for index, (phrase, met) in enumerate(zip(self.phrases, self.met, strict=True)):
            if not met and phrase[0] == token:
                return self._matching(index, 1)
        return replace(self, current=-1, matched=0)

    def _matching(self, index: int, matched: int) -> PhraseProgress:
        if matched < len(self.phrases[index]):
            return replace(self, current=index, matched=matched)
        met = tuple(each or at == index for at, each in enumerate(self.met))
        return replace(self, met=met, current=-1, matched=0)


@dataclass(frozen=True)
class _Candidate:
    score: float
    origin: int
    token: int
    progress: PhraseProgress


def constrained_search(
    model: Seq2Seq, memory: Memory, limit: int, beam: Beam, phrases: Sequence[Sequence[int]]
) -> SearchResult:
    """Return the best sentences of one source that contain every phrase.

    Args:
        model: The model, in eval mode.
        memory: One encoded source.
        limit: Maximum number of tokens before the end token, not counting the phrases' tokens.
        beam: Size, penalties and other settings. The size is raised to at least one more than the
            number of phrase tokens.
        phrases: Token ids of each phrase.

    Raises:
        InputError: A phrase is empty, or contains an end, begin or padding token.

    Source:
        Post and Vilar, "Fast Lexically Constrained Decoding with Dynamic Beam Allocation for Neural
        Machine Translation" (arXiv 1804.06609). There, each number of
        phrase tokens has a fixed share of the beam's slots; here, the slots are assigned in turn.
    """
    wanted = _checked(phrases)
    total = sum(map(len, wanted))
    limit += total
    size = max(beam.size, total + 1)
    state = model.init_state(memory)
    progress = [PhraseProgress(wanted, (False,) * len(wanted))]
    scores, tokens = [0.0], torch.full((1, 1), BEGIN_ID, device=memory.mask.device)
    attended: Tensor | None = memory.values.new_zeros(1, 0, memory.mask.shape[1])
    ended: list[tuple[float, float, Tensor, Tensor | None]] = []
    for position in range(limit + 1):
        logits, state, attention = model.step(tokens[:, -1], state)
        found = log_probabilities(logits)
        if beam.no_repeat_ngram_size:
            found = block_repeated_ngrams(found, tokens[:, 1:], beam.no_repeat_ngram_size)
        room, spare = size - len(ended), limit - position
        chosen = _choose(found, scores, progress, room, spare, beam, position)
        if not chosen:
            break
        rows = torch.tensor([each.origin for each in chosen], device=tokens.device)
        added = torch.tensor([[each.token] for each in chosen], device=tokens.device)
        tokens = torch.cat([tokens[rows], added], 1)
        state = select_hypotheses(state, rows)
        if attention is None or attended is None:
            attended = None
        else:
            attended = torch.cat([attended, attention.unsqueeze(1)], 1)[rows]
        for row, each in enumerate(chosen):
            if each.token == END_ID:
                ended.append(_ended(each, row, tokens, attended, memory, beam))
        active = [row for row, each in enumerate(chosen) if each.token != END_ID]
        best = max((chosen[row].score for row in active), default=-torch.inf)
        ranked = sorted((score for score, *_ in ended), reverse=True)
        attainable = best / beam.divisor(limit + 1.0)
        if not active or (len(ranked) >= beam.n_best and ranked[beam.n_best - 1] >= attainable):
            break
        kept = torch.tensor(active, device=tokens.device)
        tokens, state = tokens[kept], select_hypotheses(state, kept)
        attended = None if attended is None else attended[kept]
        scores = [chosen[row].score for row in active]
        progress = [chosen[row].progress for row in active]
    return _as_result(ended, beam.n_best, memory)


def _checked(phrases: Sequence[Sequence[int]]) -> Phrases:
    wanted: Phrases = tuple(tuple(map(int, phrase)) for phrase in phrases)
    for phrase in wanted:
        if not phrase or {END_ID, BEGIN_ID, PADDING_ID} & set(phrase):
            raise InputError(
                f"The required phrase {list(phrase)} is invalid: give at least one token, and no "
                "begin, end or padding token."
            )
    return wanted


def _choose(
    found: Tensor,
    scores: Sequence[float],
    progress: Sequence[PhraseProgress],
    room: int,
    spare: int,
    beam: Beam,
    position: int,
) -> list[_Candidate]:
    """Choose the next hypotheses: in turn, the best one for each number of phrase tokens."""
    banks: dict[int, list[_Candidate]] = {}
    likeliest = found.topk(min(room + 1, found.shape[1]), dim=1).indices.tolist()
    for row, before in enumerate(progress):
        tried = set(before.next_tokens)
        # If the limit leaves no spare tokens, only phrase tokens can follow.
        if spare > before.remaining:
            tried |= {*likeliest[row], END_ID}
        elif before.remaining == 0:
            tried = {END_ID}
        for token in tried:
            score = float(found[row, token]) + scores[row]
            may_end = before.remaining == 0 and position >= beam.min_length
            if score == -torch.inf or (token == END_ID and not may_end):
                continue
            after = before if token == END_ID else before.after(token)
            banks.setdefault(after.count, []).append(_Candidate(score, row, token, after))
    for bank in banks.values():
        bank.sort(key=lambda each: (-each.score, each.origin, each.token))
    chosen: list[_Candidate] = []
    # One of each bank in turn, those with the most phrase tokens first.
    order = sorted(banks, reverse=True)
    rank = 0
    while len(chosen) < room and any(rank < len(banks[count]) for count in order):
        chosen += [banks[count][rank] for count in order if rank < len(banks[count])]
        rank += 1
    return chosen[:room]


def _ended(
    each: _Candidate, row: int, tokens: Tensor, attended: Tensor | None, memory: Memory, beam: Beam
) -> tuple[float, float, Tensor, Tensor | None]:
    """Return score, log-probability, tokens and attention of a sentence that has ended."""
    sentence = tokens[row, 1:]
    weights = None if attended is None else attended[row]
    score = each.score / beam.divisor(float(len(sentence)))
    if beam.coverage_penalty and weights is not None:
        penalty = float(coverage_penalty(weights.sum(0), memory.mask[0]))
        score += beam.coverage_penalty * penalty
    return score, each.score, sentence, weights


def _as_result(ended: list[Any], n_best: int, memory: Memory) -> SearchResult:
    """Return the best ended sentences as a batch of one source."""
    ranked = sorted(ended, key=lambda each: -each[0])[:n_best]
    longest = max((len(tokens) for _, _, tokens, _ in ranked), default=1)
    source = memory.mask.shape[1]
    tokens = torch.full((1, n_best, longest), PADDING_ID, device=memory.mask.device)
    scores = memory.values.new_full((1, n_best), -torch.inf)
    log_probs, attention = scores.clone(), memory.values.new_zeros(1, n_best, longest, source)
    has_attention = all(weights is not None for _, _, _, weights in ranked)
    for rank, (score, log_prob, sentence, weights) in enumerate(ranked):
        tokens[0, rank, : len(sentence)] = sentence
        scores[0, rank], log_probs[0, rank] = score, log_prob
        if weights is not None:
            attention[0, rank, : len(sentence)] = weights
    return SearchResult(tokens, scores, log_probs, attention if has_attention else None)
