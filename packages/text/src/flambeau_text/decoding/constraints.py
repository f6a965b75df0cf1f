"""``constrained_search``: a beam whose sentences hold given phrases.

Beginnings that have met more of the phrases compete only with one another: without that, those that
have met none are likelier and fill the beam.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau_text.decoding.blocking import block_repeats
from flambeau_text.decoding.decoded import Decoded, log_probabilities
from flambeau_text.decoding.penalties import coverage_penalty
from flambeau_text.decoding.strategy import Beam
from flambeau_text.models.seq2seq import Memory, Seq2Seq, select
from flambeau_text.tokenization.tokenizer import BEGIN_ID, END_ID, PADDING_ID

Phrases = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Progress:
    """How far a beginning has met the phrases.

    Attributes:
        phrases: Token numbers of each.
        met: Which are in it whole.
        current: The phrase that its last words begin, or -1.
        place: How many words of that one are said.
    """

    phrases: Phrases
    met: tuple[bool, ...]
    current: int = -1
    place: int = 0

    @property
    def count(self) -> int:
        """Words of phrases that are said."""
        return (
            sum(len(p) for p, met in zip(self.phrases, self.met, strict=True) if met) + self.place
        )

    @property
    def left(self) -> int:
        """Words of phrases that are not."""
        return sum(map(len, self.phrases)) - self.count

    @property
    def wanted(self) -> list[int]:
        """Words that would meet one word more."""
        if self.current >= 0:
            return [self.phrases[self.current][self.place]]
        pairs = zip(self.phrases, self.met, strict=True)
        return sorted({phrase[0] for phrase, met in pairs if not met})

    def after(self, word: int) -> Progress:
        """The progress once ``word`` is said; a phrase that is broken off begins anew."""
        if self.current >= 0 and self.phrases[self.current][self.place] == word:
            return self._said(self.current, self.place + 1)
        for number, (phrase, met) in enumerate(zip(self.phrases, self.met, strict=True)):
            if not met and phrase[0] == word:
                return self._said(number, 1)
        return replace(self, current=-1, place=0)

    def _said(self, number: int, place: int) -> Progress:
        if place < len(self.phrases[number]):
            return replace(self, current=number, place=place)
        met = tuple(each or at == number for at, each in enumerate(self.met))
        return replace(self, met=met, current=-1, place=0)


@dataclass(frozen=True)
class _Candidate:
    score: float
    origin: int
    word: int
    progress: Progress


def constrained_search(
    model: Seq2Seq, memory: Memory, limit: int, beam: Beam, phrases: Sequence[Sequence[int]]
) -> Decoded:
    """The best sentences of one source that hold every phrase.

    Args:
        model: In eval mode.
        memory: Of one source.
        limit: Words that an answer may have before its end, besides those of the phrases.
        beam: Size, penalties and what else; the size is at least one more than the phrases' words.
        phrases: Token numbers of each.

    Raises:
        InputError: A phrase is empty, or holds an end, begin or padding token.

    Source:
        Post and Vilar, "Fast Lexically Constrained Decoding with Dynamic Beam Allocation for Neural
        Machine Translation" (arXiv 1804.06609), without its fixed share for each number of words
        where a number has too few beginnings.
    """
    wanted: Phrases = tuple(tuple(map(int, phrase)) for phrase in phrases)
    for phrase in wanted:
        if not phrase or {END_ID, BEGIN_ID, PADDING_ID} & set(phrase):
            raise InputError(
                f"A phrase that an answer must hold is {list(phrase)}: give at least one token, "
                "and neither begin, end nor padding."
            )
    total = sum(map(len, wanted))
    limit += total
    size = max(beam.size, total + 1)
    state = model.init_state(memory)
    progress = [Progress(wanted, (False,) * len(wanted))]
    scores, words = [0.0], torch.full((1, 1), BEGIN_ID, device=memory.mask.device)
    attended: Tensor | None = memory.values.new_zeros(1, 0, memory.mask.shape[1])
    ended: list[tuple[float, float, Tensor, Tensor | None]] = []
    for place in range(limit + 1):
        logits, state, attention = model.step(words[:, -1], state)
        found = log_probabilities(logits)
        if beam.no_repeat:
            found = block_repeats(found, words[:, 1:], beam.no_repeat)
        chosen = _chosen(found, scores, progress, size - len(ended), limit - place, beam, place)
        if not chosen:
            break
        rows = torch.tensor([each.origin for each in chosen], device=words.device)
        said = torch.tensor([[each.word] for each in chosen], device=words.device)
        words = torch.cat([words[rows], said], 1)
        state = select(state, rows)
        if attention is None or attended is None:
            attended = None
        else:
            attended = torch.cat([attended, attention.unsqueeze(1)], 1)[rows]
        for row, each in enumerate(chosen):
            if each.word == END_ID:
                ended.append(_ended(each, row, words, attended, memory, beam))
        going = [row for row, each in enumerate(chosen) if each.word != END_ID]
        best = max((chosen[row].score for row in going), default=-torch.inf)
        ranked = sorted((score for score, *_ in ended), reverse=True)
        attainable = best / beam.divisor(limit + 1.0)
        if not going or (len(ranked) >= beam.n_best and ranked[beam.n_best - 1] >= attainable):
            break
        kept = torch.tensor(going, device=words.device)
        words, state = words[kept], select(state, kept)
        attended = None if attended is None else attended[kept]
        scores = [chosen[row].score for row in going]
        progress = [chosen[row].progress for row in going]
    return _gathered(ended, beam.n_best, memory)


def _chosen(
    found: Tensor,
    scores: Sequence[float],
    progress: Sequence[Progress],
    room: int,
    words_left: int,
    beam: Beam,
    place: int,
) -> list[_Candidate]:
    """What the beam goes on with: the best of each number of words met, as evenly as there are."""
    banks: dict[int, list[_Candidate]] = {}
    likeliest = found.topk(min(room + 1, found.shape[1]), dim=1).indices.tolist()
    for row, before in enumerate(progress):
        tried = set(before.wanted)
        # With no word to spare only words of the phrases are left.
        if words_left > before.left:
            tried |= {*likeliest[row], END_ID}
        elif before.left == 0:
            tried = {END_ID}
        for word in tried:
            score = float(found[row, word]) + scores[row]
            may_end = before.left == 0 and place >= beam.min_words
            if score == -torch.inf or (word == END_ID and not may_end):
                continue
            after = before if word == END_ID else before.after(word)
            banks.setdefault(after.count, []).append(_Candidate(score, row, word, after))
    for bank in banks.values():
        bank.sort(key=lambda each: (-each.score, each.origin, each.word))
    taken: list[_Candidate] = []
    # One of each in turn, beginning with those that have met most.
    order = sorted(banks, reverse=True)
    rank = 0
    while len(taken) < room and any(rank < len(banks[count]) for count in order):
        taken += [banks[count][rank] for count in order if rank < len(banks[count])]
        rank += 1
    return taken[:room]


def _ended(
    each: _Candidate, row: int, words: Tensor, attended: Tensor | None, memory: Memory, beam: Beam
) -> tuple[float, float, Tensor, Tensor | None]:
    """Score, likelihood, words and attention of a sentence that has ended."""
    sentence = words[row, 1:]
    looked = None if attended is None else attended[row]
    score = each.score / beam.divisor(float(len(sentence)))
    if beam.coverage and looked is not None:
        score += beam.coverage * float(coverage_penalty(looked.sum(0), memory.mask[0]))
    return score, each.score, sentence, looked


def _gathered(ended: list[Any], n_best: int, memory: Memory) -> Decoded:
    """The best ended sentences as a batch of one."""
    ranked = sorted(ended, key=lambda each: -each[0])[:n_best]
    longest = max((len(words) for _, _, words, _ in ranked), default=1)
    source = memory.mask.shape[1]
    tokens = torch.full((1, n_best, longest), PADDING_ID, device=memory.mask.device)
    scores = memory.values.new_full((1, n_best), -torch.inf)
    likelihoods, attention = scores.clone(), memory.values.new_zeros(1, n_best, longest, source)
    attends = all(looked is not None for _, _, _, looked in ranked)
    for place, (score, likelihood, words, looked) in enumerate(ranked):
        tokens[0, place, : len(words)] = words
        scores[0, place], likelihoods[0, place] = score, likelihood
        if looked is not None:
            attention[0, place, : len(words)] = looked
    return Decoded(tokens, scores, likelihoods, attention if attends else None)
