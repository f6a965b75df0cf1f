"""Searches against enumeration, each other, and teacher-forced log-probabilities."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flambeau.errors import ArgumentError, InputError
from flambeau_text.decoding import (
    AverageLengthPenalty,
    Beam,
    GnmtLengthPenalty,
    Greedy,
    Sampling,
    beam_search,
    greedy_search,
    sequence_log_probabilities,
    strategy_from_json,
)
from flambeau_text.decoding.constrained_beam import constrained_search
from flambeau_text.decoding.ngram_blocking import block_repeated_ngrams
from flambeau_text.decoding.penalties import coverage_penalty
from flambeau_text.decoding.sampling import draw_tokens, filtered_probabilities
from flambeau_text.decoding.search import search
from flambeau_text.models import Memory, Seq2Seq, select

TOLERANCE = {"atol": 1e-12, "rtol": 0}
LENGTHS = [6, 2, 4]
BEAM = Beam(size=3, n_best=3, coverage_penalty=0.2)
STRATEGIES = [Greedy(), BEAM, Beam(size=4, length_penalty=None), Sampling(top_k=4, seed=5)]


def tokens_of(tokens: torch.Tensor) -> list[int]:
    return [int(token) for token in tokens if token != 1]


# ---------------------------------------------------------------- against enumeration

TOKENS, LONGEST = (0, 4, 5), 4  # "unknown" and two words
SHORT_VOCAB = 6


def exhaustive(model: Seq2Seq, memory: Memory) -> dict[tuple[int, ...], float]:
    """The log-probability of every sentence with up to LONGEST tokens."""
    sentences = [
        [*words, 3]
        for length in range(LONGEST + 1)
        for words in itertools.product(TOKENS, repeat=length)
    ]
    width = LONGEST + 1
    tokens = torch.tensor([[*each, *[1] * (width - len(each))] for each in sentences])
    many = torch.zeros(len(sentences), dtype=torch.int64)
    with torch.no_grad():
        scores = sequence_log_probabilities(model, select(memory, many), tokens)
    return {tuple(each): float(score) for each, score in zip(sentences, scores, strict=True)}


@pytest.mark.parametrize("name", ["gru", "input feeding", "pre-norm"])
@pytest.mark.parametrize(
    "length_penalty",
    [
        None,
        GnmtLengthPenalty(0.0),
        GnmtLengthPenalty(1.0),
        GnmtLengthPenalty(2.0),
        AverageLengthPenalty(1.0),
    ],
    ids=repr,
)
def test_a_wide_beam_is_exhaustive_search(
    small: SimpleNamespace, name: str, length_penalty: object
) -> None:
    model = small.make(name, scale=1.5, target_vocab=SHORT_VOCAB)
    memory = model.encode(*small.sources([5]))
    beam = Beam(size=len(TOKENS) ** LONGEST + 40, length_penalty=length_penalty, n_best=5)  # type: ignore[arg-type]
    with torch.no_grad():
        found = beam_search(model, memory, torch.tensor([LONGEST]), beam)
    every = exhaustive(model, memory)
    divisor = {k: 1.0 if length_penalty is None else length_penalty.divisor(len(k)) for k in every}  # type: ignore[attr-defined]
    ranked = sorted(every, key=lambda each: -every[each] / divisor[each])
    for rank in range(5):
        wanted = ranked[rank]
        score = every[wanted] / divisor[wanted]
        assert float(found.scores[0, rank]) == pytest.approx(score, abs=1e-12)
        assert tuple(tokens_of(found.tokens[0, rank])) == wanted


# ---------------------------------------------------------------- against each other


def test_a_beam_of_size_1_is_greedy_search(model: Seq2Seq, small: SimpleNamespace) -> None:
    memory = model.encode(*small.sources(LENGTHS))
    limit = torch.tensor([8, 5, 6])
    greedy = greedy_search(model, memory, limit)
    beam = beam_search(model, memory, limit, Beam(size=1))
    for row in range(3):
        assert tokens_of(beam.tokens[row, 0]) == tokens_of(greedy.tokens[row, 0])
    torch.testing.assert_close(beam.log_probabilities, greedy.log_probabilities, **TOLERANCE)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_log_probabilities_equal_a_teacher_forced_pass(
    model: Seq2Seq, small: SimpleNamespace, strategy: Beam
) -> None:
    source = small.sources(LENGTHS)
    found = search(model, *source, strategy)
    memory = model.encode(*source)
    for rank in range(found.tokens.shape[1]):
        scores = sequence_log_probabilities(model, memory, found.tokens[:, rank])
        torch.testing.assert_close(found.log_probabilities[:, rank], scores, **TOLERANCE)
        assert all(tokens_of(row)[-1] == 3 for row in found.tokens[:, rank])


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_results_do_not_depend_on_the_batch(
    model: Seq2Seq, small: SimpleNamespace, strategy: Beam
) -> None:
    tokens, mask = small.sources(LENGTHS, longest=9)
    together = search(model, tokens, mask, strategy)
    for row, length in enumerate(LENGTHS):
        alone = slice(row, row + 1)
        numbers = torch.tensor([row])
        single = search(model, tokens[alone, :length], mask[alone, :length], strategy, numbers)
        torch.testing.assert_close(together.scores[row], single.scores[0], **TOLERANCE)
        for rank in range(together.tokens.shape[1]):
            tokens_alone = tokens_of(together.tokens[row, rank])
            assert tokens_alone == tokens_of(single.tokens[0, rank])
            assert together.attention is not None
            assert single.attention is not None
            torch.testing.assert_close(
                together.attention[row, rank, : len(tokens_alone), :length],
                single.attention[0, rank, : len(tokens_alone)],
                **TOLERANCE,
            )


# ---------------------------------------------------------------- a model with given probabilities


class Scripted(Seq2Seq):
    """Next-token probabilities by the tokens so far; the rest is spread over all tokens."""

    def __init__(self, script: dict[tuple[int, ...], dict[int, float]], vocab: int) -> None:
        super().__init__()
        self.script, self.vocab = script, vocab
        self.output = torch.nn.Identity()

    def encode(self, source: torch.Tensor, mask: torch.Tensor) -> Memory:
        return Memory(torch.zeros(*source.shape, 1, dtype=torch.float64), mask)

    def init_state(self, memory: Memory) -> torch.Tensor:
        return torch.zeros(len(memory.mask), 0, dtype=torch.int64)

    def advance(self, previous: torch.Tensor, state: torch.Tensor) -> tuple:
        tokens = torch.cat([state, previous.unsqueeze(1)], 1)
        rows = []
        for row in tokens[:, 1:].tolist():
            known = self.script.get(tuple(row), {3: 1.0})
            rest = (1.0 - sum(known.values())) / self.vocab + 1e-12
            rows.append([known.get(word, 0.0) + rest for word in range(self.vocab)])
        return torch.tensor(rows, dtype=torch.float64).log(), tokens, None


MASK = torch.ones(1, 3, dtype=torch.bool)
SOURCE = torch.full((1, 3), 4)


def test_an_ended_hypothesis_can_still_be_beaten() -> None:
    # The end token is most probable first, but the long sentence has a better mean per token.
    script = {
        (): {3: 0.5, 4: 0.45},
        (4,): {5: 0.95},
        (4, 5): {4: 0.95},
        (4, 5, 4): {3: 0.95},
    }
    found = search(
        Scripted(script, 6), SOURCE, MASK, Beam(size=2, length_penalty=AverageLengthPenalty(1.0))
    )
    assert tokens_of(found.tokens[0, 0]) == [4, 5, 4, 3]
    # Without a length penalty the end token alone is the most probable sentence.
    found = search(Scripted(script, 6), SOURCE, MASK, Beam(size=2, length_penalty=None))
    assert tokens_of(found.tokens[0, 0]) == [3]


def test_an_ended_hypothesis_is_returned_once() -> None:
    script = {(): {3: 0.6, 4: 0.3}, (4,): {3: 0.9}}
    found = search(Scripted(script, 6), SOURCE, MASK, Beam(size=3, n_best=3, length_penalty=None))
    sentences = [tuple(tokens_of(found.tokens[0, rank])) for rank in range(3)]
    assert len(set(sentences)) == 3
    assert sentences[:2] == [(3,), (4, 3)]


def test_the_maximum_length_ends_every_sentence() -> None:
    script = {(4,) * n: {4: 1.0} for n in range(30)}
    for strategy in (
        Greedy(max_length_factor=1.0, max_length_extra=2),
        Beam(size=2, max_length_factor=1, max_length_extra=2),
    ):
        found = search(Scripted(script, 6), SOURCE, MASK, strategy)
        assert tokens_of(found.tokens[0, 0]) == [4, 4, 4, 4, 4, 3]


def test_the_minimum_length() -> None:
    script = {(4,) * n: {3: 0.7, 4: 0.3} for n in range(30)}
    for strategy in (Greedy(min_length=3), Beam(min_length=3), Sampling(min_length=3)):
        found = search(Scripted(script, 6), SOURCE, MASK, strategy)
        assert len(tokens_of(found.tokens[0, 0])) >= 4
    assert tokens_of(search(Scripted(script, 6), SOURCE, MASK, Greedy()).tokens[0, 0]) == [3]


def test_no_ngram_is_repeated() -> None:
    script = {}
    for length in range(12):
        for words in itertools.product((4, 5), repeat=min(length, 8)):
            script[words] = {4: 0.6, 5: 0.3, 3: 0.05}
    for size in (1, 2, 3):
        strategy = Beam(size=3, no_repeat_ngram_size=size, length_penalty=None, min_length=2)
        tokens = tokens_of(search(Scripted(script, 6), SOURCE, MASK, strategy).tokens[0, 0])
        ngrams = [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]
        assert len(set(ngrams)) == len(ngrams)


def test_ngram_blocking_equals_a_slow_loop() -> None:
    draws = torch.Generator().manual_seed(0)
    words = torch.randint(0, 3, (40, 7), generator=draws)
    for size in (1, 2, 3, 9):
        found = block_repeated_ngrams(torch.zeros(40, 5), words, size)
        for row, tokens in enumerate(words.tolist()):
            ngrams = {tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)}
            for word in range(5):
                last = tokens[len(tokens) - size + 1 :] if size > 1 else []
                is_blocked = len(last) == size - 1 and (*last, word) in ngrams
                assert (found[row, word] == -torch.inf) == is_blocked


def test_the_coverage_penalty_favours_even_attention() -> None:
    mask = torch.tensor([[True, True, False]])
    even = coverage_penalty(torch.tensor([[1.0, 1.0, 0.0]]), mask)
    uneven = coverage_penalty(torch.tensor([[1.9, 0.1, 0.0]]), mask)
    assert float(even) == 0.0
    assert float(uneven) == pytest.approx(float(torch.tensor(0.1).log()))


@pytest.mark.parametrize(
    ("penalty", "divisor"),
    [
        (GnmtLengthPenalty(0.6), lambda n: ((5 + n) / 6) ** 0.6),
        (AverageLengthPenalty(0.5), lambda n: n**0.5),
        (None, lambda n: 1.0),
    ],
)
def test_scores_of_the_beam_equal_the_published_formula(
    small: SimpleNamespace, penalty: object, divisor: object
) -> None:
    model = small.make("gru", scale=2.0)
    beam = Beam(size=4, n_best=4, length_penalty=penalty, coverage_penalty=0.3)  # type: ignore[arg-type]
    source, mask = small.sources([5, 3])
    found = search(model, source, mask, beam)
    coverages: list[float] = []
    for row, rank in itertools.product(range(2), range(4)):
        length = len(tokens_of(found.tokens[row, rank]))
        total = [0.0] * int(mask[row].sum())
        for at in range(length):
            for place in range(len(total)):
                total[place] += float(found.attention[row, rank, at, place])  # type: ignore[index]
        # Wu et al., equation 14: sources that were attended to too little lower the score.
        coverage = 0.3 * sum(math.log(min(attended, 1.0)) for attended in total)
        coverages.append(coverage)
        wanted = float(found.log_probabilities[row, rank]) / divisor(length) + coverage  # type: ignore[operator]
        # The attention is stored in the model's dtype, float64.
        assert float(found.scores[row, rank]) == pytest.approx(wanted, abs=1e-9)
        assert rank == 0 or found.scores[row, rank] <= found.scores[row, rank - 1]
    assert min(coverages) < 0


@pytest.mark.parametrize("constrained", [False, True])
def test_a_search_goes_on_while_a_longer_sentence_could_be_better(constrained: bool) -> None:
    # At its present length the long sentence is worse, for many steps.
    script: dict[tuple[int, ...], dict[int, float]] = {(): {3: 0.7, 4: 0.3}}
    script |= {(4,) * n: {4: 0.9999} for n in range(1, 12)}
    script[(4,) * 12] = {3: 0.9999}
    beam = Beam(size=2, length_penalty=AverageLengthPenalty(1.0))
    model = Scripted(script, 6)
    if constrained:
        found = constrained_search(model, model.encode(SOURCE, MASK), 40, beam, [])
    else:
        found = search(model, SOURCE, MASK, beam)
    assert tokens_of(found.tokens[0, 0]) == [4] * 12 + [3]


# ---------------------------------------------------------------- sampling


def test_draws_follow_the_probabilities() -> None:
    shares = torch.tensor([0.0, 0.5, 0.2, 0.0, 0.3])
    uniform = (torch.arange(100_000) + 0.5) / 100_000
    words = draw_tokens(shares.expand(100_000, 5), uniform)
    counts = torch.bincount(words, minlength=5) / 100_000
    torch.testing.assert_close(counts, shares, atol=2e-5, rtol=0)
    ends = torch.tensor([0.0, 1.0 - 2**-24])
    assert draw_tokens(shares.expand(2, 5), ends).tolist() == [1, 4]


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(), [0.4, 0.3, 0.2, 0.1]),
        (Sampling(top_k=2), [4 / 7, 3 / 7, 0.0, 0.0]),
        (Sampling(top_p=0.65), [4 / 7, 3 / 7, 0.0, 0.0]),
        (Sampling(top_p=0.75), [4 / 9, 3 / 9, 2 / 9, 0.0]),
        (Sampling(min_p=0.6), [4 / 7, 3 / 7, 0.0, 0.0]),
        (Sampling(top_p=0.01), [1.0, 0.0, 0.0, 0.0]),
        (Sampling(temperature=0.5), [16 / 30, 9 / 30, 4 / 30, 1 / 30]),
    ],
    ids=repr,
)
def test_filters_keep_the_expected_tokens(sampling: Sampling, kept: list[float]) -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()
    torch.testing.assert_close(
        filtered_probabilities(logits, sampling)[0], torch.tensor(kept).double()
    )


def test_sampling_at_low_temperature_is_greedy(model: Seq2Seq, small: SimpleNamespace) -> None:
    source = small.sources(LENGTHS)
    sampled = search(model, *source, Sampling(temperature=1e-6))
    greedy = search(model, *source, Greedy())
    assert torch.equal(sampled.tokens, greedy.tokens)
    other = [search(model, *source, Sampling(seed=seed)).tokens.tolist() for seed in range(6)]
    assert len({str(each) for each in other}) > 1


# ---------------------------------------------------------------- JSON and errors


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_json_round_trip(strategy: Beam) -> None:
    assert strategy_from_json(strategy.as_json()) == strategy


def test_invalid_settings_raise() -> None:
    with pytest.raises(ArgumentError, match=r"Unknown decoding strategy 'beem'.*'beam'"):
        strategy_from_json({"kind": "beem"})
    with pytest.raises(ArgumentError, match=r"beam decoding has no setting 'sise'.*'size'"):
        strategy_from_json({"kind": "beam", "sise": 3})
    with pytest.raises(InputError, match="size 2 and n_best 3"):
        Beam(size=2, n_best=3)
    with pytest.raises(InputError, match="temperature must be above 0"):
        Sampling(temperature=0.0)
    for make in (
        lambda: Beam(size="5"),  # type: ignore[arg-type]
        lambda: Beam(n_best=1.5),  # type: ignore[arg-type]
        lambda: Sampling(seed="a"),  # type: ignore[arg-type]
        lambda: Sampling(top_p=True),
        lambda: strategy_from_json({"kind": "beam", "size": None}),
    ):
        with pytest.raises(ArgumentError, match=r"must be a (whole )?number, not "):
            make()
    assert Beam(size=np.int64(3)).as_json()["size"] == 3  # type: ignore[arg-type]
    with pytest.raises(InputError, match="alpha is an exponent"):
        GnmtLengthPenalty(-1.0)
