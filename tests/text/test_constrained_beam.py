"""Beam search with required phrases, against enumeration and plain beam search."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from flambeau.errors import InputError
from flambeau_text.decoding import Beam, GnmtLengthPenalty, beam_search, sequence_log_probabilities
from flambeau_text.decoding.constrained_beam import PhraseProgress, constrained_search
from flambeau_text.models import Seq2Seq, select


def tokens_of(tokens: torch.Tensor) -> list[int]:
    return [int(token) for token in tokens if token != 1]


def contains(sentence: list[int], phrase: list[int]) -> bool:
    starts = range(len(sentence) - len(phrase) + 1)
    return any(sentence[at : at + len(phrase)] == phrase for at in starts)


def test_an_interrupted_phrase_starts_again() -> None:
    at = PhraseProgress(((5, 6, 7), (8,)), (False, False))
    assert at.next_tokens == [5, 8]
    at = at.after(5).after(6)
    assert (at.count, at.remaining, at.next_tokens) == (2, 2, [7])
    assert at.after(4).count == 0
    assert at.after(5).count == 1
    at = at.after(7)
    assert (at.count, at.met) == (3, (True, False))
    assert at.after(8).remaining == 0


def test_results_contain_every_phrase(model: Seq2Seq, small: SimpleNamespace) -> None:
    source = small.sources([6])
    phrases = [[5, 7], [8]]
    with torch.no_grad():
        memory = model.encode(*source)
        for size in (1, 4, 8):
            found = constrained_search(model, memory, 8, Beam(size=size), phrases)
            tokens = tokens_of(found.tokens[0, 0])
            assert tokens[-1] == 3
            assert all(contains(tokens, phrase) for phrase in phrases)
            scores = sequence_log_probabilities(model, memory, found.tokens[:, 0])
            torch.testing.assert_close(found.log_probabilities[:, 0], scores, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["gru", "pre-norm"])
def test_a_wide_beam_equals_enumeration(small: SimpleNamespace, name: str) -> None:
    model = small.make(name, scale=1.5, target_vocab=6)
    limit, phrase = 2, [5, 4]
    sentences = [
        [*words, 3]
        for length in range(limit + len(phrase) + 1)
        for words in itertools.product((0, 4, 5), repeat=length)
    ]
    sentences = [each for each in sentences if contains(each, phrase)]
    width = limit + len(phrase) + 1
    tokens = torch.tensor([[*each, *[1] * (width - len(each))] for each in sentences])
    with torch.no_grad():
        memory = model.encode(*small.sources([5]))
        many = select(memory, torch.zeros(len(sentences), dtype=torch.int64))
        lengths = torch.tensor([len(each) for each in sentences])
        scores = sequence_log_probabilities(model, many, tokens) / ((5 + lengths.double()) / 6)
        beam = Beam(size=400, length_penalty=GnmtLengthPenalty(1.0))
        found = constrained_search(model, memory, limit, beam, [phrase])
    assert tokens_of(found.tokens[0, 0]) == sentences[int(scores.argmax())]
    assert float(found.scores[0, 0]) == pytest.approx(float(scores.max()), abs=1e-12)


def test_without_phrases_it_equals_beam_search(model: Seq2Seq, small: SimpleNamespace) -> None:
    with torch.no_grad():
        memory = model.encode(*small.sources([6]))
        beam = Beam(size=3, n_best=2, coverage_penalty=0.1)
        plain = beam_search(model, memory, torch.tensor([7]), beam)
        found = constrained_search(model, memory, 7, beam, [])
    for rank in range(2):
        assert tokens_of(found.tokens[0, rank]) == tokens_of(plain.tokens[0, rank])
    torch.testing.assert_close(found.scores, plain.scores, atol=1e-12, rtol=0)


def test_invalid_phrases_raise(small: SimpleNamespace) -> None:
    model = small.make("gru")
    memory = model.encode(*small.sources([6]))
    for phrase in ([], [4, 3]):
        with pytest.raises(InputError, match="at least one token, and no begin, end"):
            constrained_search(model, memory, 5, Beam(), [phrase])
