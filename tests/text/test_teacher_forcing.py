"""Teacher forcing: schedules, the draws of positions, and predicted inputs."""

from __future__ import annotations

import copy
import json
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from flambeau.errors import ArgumentError, InputError
from flambeau.training import History
from flambeau_text.decoding import greedy_search
from flambeau_text.forcing import (
    AdaptiveForcing,
    Constant,
    Exponential,
    InverseSigmoid,
    Linear,
    TeacherForcing,
    schedule_from_json,
)
from flambeau_text.forcing import unroll as module
from flambeau_text.forcing.decoder_inputs import DrawKeys, predicted_input, reference_positions
from flambeau_text.forcing.gap import gap_scores
from flambeau_text.forcing.schedule import as_json
from flambeau_text.forcing.unroll import decoder_features
from flambeau_text.models import Seq2Seq

TOLERANCE = {"atol": 1e-12, "rtol": 0}
LENGTHS = [6, 2, 4]
FEEDS = ["argmax", "sample", "gumbel", "soft"]


def keys(n: int = 3, epoch: int = 0, seed: int = 0, first: int = 0) -> DrawKeys:
    return DrawKeys(seed, epoch, torch.arange(first, first + n))


# ---------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    ("schedule", "at_0", "at_1", "at_1000"),
    [
        (Constant(0.7), 0.7, 0.7, 0.7),
        (Linear(k=0.9, c=1e-4, floor=0.2), 0.9, 0.8999, 0.8),
        (Linear(k=0.9, c=1e-2, floor=0.2), 0.9, 0.89, 0.2),
        (Exponential(k=0.999), 1.0, 0.999, 0.999**1000),
        (Exponential(k=0.99, floor=0.1), 1.0, 0.99, 0.1),
        (
            InverseSigmoid(k=100),
            100 / 101,
            100 / (100 + math.exp(0.01)),
            100 / (100 + math.exp(10)),
        ),
    ],
    ids=repr,
)
def test_schedules_follow_their_formulas(
    schedule: object, at_0: float, at_1: float, at_1000: float
) -> None:
    for step, wanted in ((0, at_0), (1, at_1), (1000, at_1000)):
        assert schedule(step) == pytest.approx(wanted, abs=1e-15)  # type: ignore[operator]
    found = [schedule(step) for step in range(3000)]  # type: ignore[operator]
    assert found == sorted(found, reverse=True)
    assert schedule_from_json(json.loads(json.dumps(as_json(schedule)))) == schedule  # type: ignore[arg-type]


def test_schedules_accept_large_steps() -> None:
    assert InverseSigmoid(k=1.0)(10**9) == 0.0
    assert Exponential()(10**9) == 0.0


def test_invalid_settings_raise() -> None:
    for make in (
        lambda: Constant(1.1), lambda: Linear(c=-1.0), lambda: Exponential(1.0),
        lambda: InverseSigmoid(0.5), lambda: Linear(floor=2.0),
    ):  # fmt: skip
        with pytest.raises(InputError):
            make()
    with pytest.raises(ArgumentError, match=r"Unknown schedule 'linaer'.*'linear'"):
        schedule_from_json({"kind": "linaer"})
    with pytest.raises(ArgumentError, match=r"linear schedule has no parameter 'q'"):
        schedule_from_json({"kind": "linear", "q": 1})
    with pytest.raises(ArgumentError, match=r"give a function of the optimizer step"):
        TeacherForcing(0.5)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"feed is 'argmin'.*'argmax'"):
        TeacherForcing(feed="argmin")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="passes must be a whole number"):
        TeacherForcing(passes=0)
    with pytest.raises(InputError, match=r"returned 1.5 at step 3"):
        TeacherForcing(lambda step: 1.5).probability(3)


def test_json_round_trip() -> None:
    forcing = TeacherForcing(Linear(0.9), "sample", "sequence", 0.5, 2)
    assert TeacherForcing.from_json(json.loads(json.dumps(forcing.as_json()))) == forcing
    with pytest.raises(ArgumentError, match="user-defined function, which cannot be saved"):
        TeacherForcing(lambda step: 0.5).as_json()
    with pytest.raises(ArgumentError, match=r"has no setting 'shedule'.*'schedule'"):
        TeacherForcing.from_json({"shedule": {}})


# ---------------------------------------------------------------- the draws


def test_the_reference_is_drawn_with_its_probability() -> None:
    n, positions = 1_000, 101
    for p in (0.1, 0.5, 0.9):
        drawn = reference_positions(keys(n), positions, p, TeacherForcing())
        assert drawn[:, 0].all()
        count = int(drawn[:, 1:].sum())
        # 4 standard deviations are exceeded once in 16,000 tries, and the seed is fixed.
        draws = n * (positions - 1)
        assert abs(count - p * draws) < 4 * math.sqrt(draws * p * (1 - p))


def test_draws_are_per_token_or_per_sequence() -> None:
    each = reference_positions(keys(4_000), 3, 0.5, TeacherForcing())[:, 1:]
    both = (each[:, 0] & each[:, 1]).float().mean()
    assert abs(float(both) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4_000)
    rows = reference_positions(keys(200), 9, 0.5, TeacherForcing(granularity="sequence"))[:, 1:]
    assert ((rows.sum(1) == 0) | (rows.sum(1) == 8)).all()
    assert 60 < int(rows[:, 0].sum()) < 140


def test_a_draw_depends_on_its_keys_only() -> None:
    whole = reference_positions(keys(8), 6, 0.5, TeacherForcing())
    # The same draws in another batch, on another process, beside longer sentences.
    assert torch.equal(reference_positions(keys(3, first=4), 6, 0.5, TeacherForcing()), whole[4:7])
    assert torch.equal(reference_positions(keys(8), 9, 0.5, TeacherForcing())[:, :6], whole)
    for other in (keys(8, epoch=1), keys(8, seed=1)):
        assert not torch.equal(reference_positions(other, 6, 0.5, TeacherForcing()), whole)


# ---------------------------------------------------------------- the unrolled decoder


def batch(model: Seq2Seq, small: SimpleNamespace) -> tuple:
    memory = model.encode(*small.sources(LENGTHS))
    return memory, small.targets([5, 3, 1])[:, :-1]


@pytest.mark.parametrize("passes", [None, 2])
def test_probability_1_is_bitwise_plain_teacher_forcing(
    model: Seq2Seq, small: SimpleNamespace, passes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, words = batch(model, small)
    monkeypatch.setattr(module, "reference_positions", None)
    generator = torch.get_rng_state()
    forcing = TeacherForcing(passes=passes)
    found = decoder_features(model, memory, words, 1.0, forcing, keys())
    assert torch.equal(found, model.features(memory, words)[0])
    assert torch.equal(generator, torch.get_rng_state())


def test_probability_0_with_argmax_is_greedy_search(model: Seq2Seq, small: SimpleNamespace) -> None:
    memory, _ = batch(model, small)
    limit = 6
    greedy = greedy_search(model, memory, torch.full((3,), limit))
    tokens = greedy.tokens[:, 0]
    words = torch.full_like(tokens, 4)  # reference tokens, none of which is to be read
    words[:, 0] = 2
    # One additional pass, a Transformer's default, does not equal token by token.
    ways = [limit + 2] if type(model).__name__.startswith("Transformer") else [None, limit + 2]
    for passes in ways:
        forcing = TeacherForcing(passes=passes)
        features = decoder_features(model, memory, words, 0.0, forcing, keys())
        found = model.output(features).log_softmax(-1)
        scores = found.gather(2, tokens.unsqueeze(2)).squeeze(2).masked_fill(tokens == 1, 0.0)
        torch.testing.assert_close(scores.sum(1), greedy.log_probabilities[:, 0], **TOLERANCE)
        found[..., [1, 2]] = -torch.inf
        predicted = found.argmax(-1)
        for row in range(3):
            length = int((tokens[row] != 1).sum())
            # The last token may be the end token that the limit has set.
            count = length - 1 if length == limit + 1 else length
            assert predicted[row, :count].tolist() == tokens[row, :count].tolist()


def slow(model: Seq2Seq, memory: object, words: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """The sentence token by token, reading the reference or the most probable token."""
    state = model.init_state(memory)  # type: ignore[arg-type]
    previous, found = words[:, 0], []
    for position in range(words.shape[1]):
        logits, state, _ = model.step(previous, state)
        found.append(logits)
        own = logits.clone()
        own[:, [1, 2]] = -torch.inf
        if position + 1 < words.shape[1]:
            previous = torch.where(drawn[:, position + 1], words[:, position + 1], own.argmax(1))
    return torch.stack(found, 1)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.7])
def test_both_ways_of_unrolling_equal_a_slow_loop(
    model: Seq2Seq, small: SimpleNamespace, p: float
) -> None:
    memory, words = batch(model, small)
    drawn = reference_positions(keys(), words.shape[1], p, TeacherForcing())
    wanted = slow(model, memory, words, drawn)
    for passes in (words.shape[1], words.shape[1] + 2):
        forcing = TeacherForcing(passes=passes)
        features = decoder_features(model, memory, words, p, forcing, keys())
        torch.testing.assert_close(model.output(features), wanted, **TOLERANCE)
    if not type(model).__name__.startswith("Transformer"):
        features = decoder_features(model, memory, words, p, TeacherForcing(), keys())
        torch.testing.assert_close(model.output(features), wanted, **TOLERANCE)


def test_a_transformer_makes_one_additional_pass(small: SimpleNamespace) -> None:
    model = small.make("pre-norm")
    memory, words = batch(model, small)
    calls = []
    plain = type(model).features
    model.features = lambda *given: calls.append(1) or plain(model, *given)  # type: ignore[method-assign]
    decoder_features(model, memory, words, 0.5, TeacherForcing(), keys())
    assert len(calls) == 2
    # Each token is predicted after what the first, teacher-forced pass predicts.
    logits = model.output(plain(model, memory, words)[0])
    logits[..., [1, 2]] = -torch.inf
    read = torch.cat([words[:, :1], logits.argmax(-1)[:, :-1]], 1)
    found = decoder_features(model, memory, words, 0.0, TeacherForcing(), keys())
    torch.testing.assert_close(found, plain(model, memory, read)[0], **TOLERANCE)


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("passes", [None, 1])
def test_every_feed_has_gradients_and_repeats(
    model: Seq2Seq, small: SimpleNamespace, feed: str, passes: int | None
) -> None:
    memory, words = batch(model, small)
    forcing = TeacherForcing(feed=feed, passes=passes)  # type: ignore[arg-type]
    found = decoder_features(model, memory, words, 0.4, forcing, keys())
    assert found.isfinite().all()
    again = decoder_features(model, memory, words, 0.4, forcing, keys())
    assert torch.equal(found, again)
    found.sum().backward()
    assert all(
        value.grad.isfinite().all() for value in model.parameters() if value.grad is not None
    )


def test_feeds_draw_from_the_models_probabilities() -> None:
    torch.manual_seed(0)
    n, vocab = 20_000, 6
    matrix = torch.eye(vocab, dtype=torch.float64)
    logits = torch.tensor([0.0, 9.0, 9.0, 1.0, 2.0, 0.5], dtype=torch.float64).expand(n, vocab)
    allowed = logits[0].clone()
    allowed[[1, 2]] = -torch.inf
    for temperature in (1.0, 0.5):
        wanted = (allowed / temperature).softmax(0)
        for feed in ("sample", "gumbel"):
            forcing = TeacherForcing(feed=feed, temperature=temperature)  # type: ignore[arg-type]
            read = predicted_input(logits, forcing, keys(n), 3, matrix)
            if feed == "sample":
                assert read.dtype == torch.int64
                read = matrix[read]
            assert ((read > 0.999).sum(1) == 1).all()
            found = read.mean(0)
            # 4 standard deviations of a share of 20,000 draws.
            assert ((found - wanted).abs() < 4 * (wanted * (1 - wanted) / n).sqrt() + 1e-9).all()
        soft = TeacherForcing(feed="soft", temperature=temperature)
        torch.testing.assert_close(predicted_input(logits[:1], soft, keys(1), 3, matrix)[0], wanted)
    assert predicted_input(logits[:2], TeacherForcing(), keys(2), 3).tolist() == [4, 4]


@pytest.mark.parametrize("feed", ["gumbel", "soft"])
def test_feeds_of_embeddings_pass_gradients(feed: str) -> None:
    logits = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    forcing = TeacherForcing(feed=feed)  # type: ignore[arg-type]
    predicted_input(logits, forcing, keys(2), 1, matrix).sum().backward()
    assert matrix.grad is not None
    assert logits.grad is not None
    assert logits.grad.any()
    with pytest.raises(InputError, match="needs the target embedding matrix"):
        predicted_input(logits, forcing, keys(2), 1)


def test_padding_does_not_change_the_features(model: Seq2Seq, small: SimpleNamespace) -> None:
    tokens, mask = small.sources(LENGTHS, longest=9)
    words = small.targets([5, 3, 1])[:, :-1]
    for feed in FEEDS:
        forcing = TeacherForcing(feed=feed)  # type: ignore[arg-type]
        memory = model.encode(tokens, mask)
        together = decoder_features(model, memory, words, 0.3, forcing, keys())
        for row, length in enumerate(LENGTHS):
            alone = slice(row, row + 1)
            single = copy.copy(model).encode(tokens[alone, :length], mask[alone, :length])
            count = int((words[row] != 1).sum())
            found = decoder_features(
                model, single, words[alone, :count], 0.3, forcing, keys(1, first=row)
            )
            torch.testing.assert_close(together[row, :count], found[0], **TOLERANCE)


# ---------------------------------------------------------------- adaptive


def history(*rows: dict[str, float]) -> History:
    found = History()
    for row in rows:
        found.add(row)
    return found


def row(gap: float, p: float, error: float = 0.0) -> dict[str, float]:
    return {
        "valid_free_running_gap": gap,
        "valid_free_running_gap_error": error,
        "teacher_forcing": p,
    }


def test_the_share_of_predictions_is_proportional_to_the_gap() -> None:
    control = AdaptiveForcing(target_gap=0.02, gain=4.0, rate=1.0, floor=0.25)
    for gap in (0.03, 0.07, 0.12, 0.2):
        found = control.update(history(row(gap, 0.9)), 0.5)
        assert found == pytest.approx({"teacher_forcing": 1 - 4 * (gap - 0.02)})
    assert control.update(history(row(0.5, 0.3)), 0.5) == pytest.approx({"teacher_forcing": 0.25})
    assert control.update(history(row(-0.2, 0.99)), 0.5) == {"teacher_forcing": 1.0}


def test_it_follows_a_gap_in_both_directions() -> None:
    control = AdaptiveForcing(target_gap=0.02, gain=4.0, rate=0.5)
    p, found = 1.0, []
    gaps = [0.02, 0.12, 0.12, 0.12, 0.04, 0.04, 0.04, 0.15, 0.15]
    for gap in gaps:
        p = control.update(history(row(gap, p, error=1e-4)), 0.5).get("teacher_forcing", p)
        found.append(1.0 - p)
    # Half the way to 4 × (gap - 0.02) each time: to 0.4, back to 0.08, and to 0.52.
    expected = [0.0, 0.2, 0.3, 0.35, 0.215, 0.1475, 0.11375, 0.316875, 0.4184375]
    assert found == pytest.approx(expected)


def test_noise_does_not_move_it() -> None:
    control = AdaptiveForcing(target_gap=0.02, gain=4.0, rate=1.0, noise=2.0)
    # A share of 0.4 corresponds to a gap of 0.12.
    for gap in (0.101, 0.12, 0.139):
        assert control.update(history(row(gap, 0.6, error=0.01)), 0.5) == {}
    for gap in (0.099, 0.141):
        found = control.update(history(row(gap, 0.6, error=0.01)), 0.5)
        assert found == pytest.approx({"teacher_forcing": 1 - 4 * (gap - 0.02)})
    # At the bounds no gap beyond them moves it.
    assert control.update(history(row(-0.1, 1.0)), 0.5) == {}
    assert control.update(history(row(0.9, 0.25)), 0.5) == {}


def test_it_settles_where_predictions_close_the_gap() -> None:
    """A model whose gap falls by 0.36 for a share of 1, measured with noise."""
    control = AdaptiveForcing(target_gap=0.02, gain=4.0, rate=0.5, noise=2.0)
    draws = torch.Generator().manual_seed(0)
    p, shares = 1.0, []
    for _ in range(60):
        gap = 0.3 - 0.36 * (1 - p) + 0.004 * float(torch.randn((), generator=draws))
        p = control.update(history(row(gap, p, error=0.004)), 0.5).get("teacher_forcing", p)
        shares.append(1 - p)
    settled = 4 * 0.28 / (1 + 4 * 0.36)
    # The band of the noise, 2 errors of the gap, in shares: the loop divides it by 1 + 4 × 0.36.
    band = 4 * 4 * 0.004 / (1 + 4 * 0.36)
    assert max(abs(share - settled) for share in shares[10:]) < band
    # Without a band it would change after every evaluation.
    assert sum(one != other for one, other in pairwise(shares[10:])) < 20


def test_the_error_of_the_gap_equals_the_bootstrap() -> None:
    draws = torch.Generator().manual_seed(3)
    forced = torch.rand(400, generator=draws, dtype=torch.float64) * 0.5 + 0.5
    noise = torch.rand(400, generator=draws, dtype=torch.float64) * 0.4 + 0.6
    pairs = list(zip(forced.tolist(), (forced * noise).tolist(), strict=True))
    scores = gap_scores(pairs)
    assert scores["free_running_gap"] == pytest.approx(
        1 - float((forced * noise).mean() / forced.mean())
    )
    rows = torch.randint(400, (2_000, 400), generator=draws)
    gaps = 1 - (forced * noise)[rows].mean(1) / forced[rows].mean(1)
    # 2,000 resamples give the standard deviation to 1.6%; 5% is three times that.
    assert scores["free_running_gap_error"] == pytest.approx(float(gaps.std()), rel=0.05)
    assert gap_scores([(1.0, 0.5)])["free_running_gap_error"] == 1.0
    assert gap_scores([(0.0, 0.0), (0.0, 0.0)])["free_running_gap"] == 0.0


def test_the_controller_waits_for_scores_and_warmup() -> None:
    control = AdaptiveForcing(warmup=0.2)
    assert control.update(history(), 0.5) == {}
    assert control.update(history({"teacher_forcing": 1.0}), 0.5) == {}
    assert control.update(history(row(0.4, 0.9)), 0.1) == {}
    with pytest.raises(InputError, match="no column of numbers 'teacher_forcing'"):
        control.update(history({"valid_free_running_gap": 0.5}), 0.5)
    with pytest.raises(InputError, match="floor must be between"):
        AdaptiveForcing(floor=2.0)
    with pytest.raises(InputError, match="gain must be above 0"):
        AdaptiveForcing(gain=0.0)
    with pytest.raises(InputError, match="rate must be above 0 and at most 1"):
        AdaptiveForcing(rate=1.5)


@pytest.mark.parametrize("feed", ["argmax", "sample", "gumbel", "soft"])
def test_passes_have_the_gradient_of_token_by_token(small: SimpleNamespace, feed: str) -> None:
    """As many passes as tokens are the same computation, so autograd gives the same gradients."""
    model = small.make("pre-norm", scale=2.0)
    source, mask = small.sources([5, 3, 4])
    target = small.targets([6, 4, 5])
    length = target.shape[1] - 1

    def gradients(forcing: TeacherForcing) -> dict[str, torch.Tensor]:
        model.zero_grad()
        keys = DrawKeys(0, 0, torch.arange(len(source)))
        memory = model.encode(source, mask)
        features = decoder_features(model, memory, target[:, :-1], 0.5, forcing, keys)
        found = model.output(features).log_softmax(-1).gather(2, target[:, 1:].unsqueeze(2))
        found.masked_fill(target[:, 1:].unsqueeze(2) == 1, 0.0).sum().backward()
        named = model.named_parameters()
        return {name: value.grad.clone() for name, value in named if value.grad is not None}

    in_passes = gradients(TeacherForcing(feed=feed, passes=length))  # type: ignore[arg-type]
    model.teacher_forcing_passes = None
    by_token = gradients(TeacherForcing(feed=feed))  # type: ignore[arg-type]
    assert in_passes.keys() == by_token.keys()
    for name, value in by_token.items():
        # float64: sums in another order
        torch.testing.assert_close(in_passes[name], value, rtol=1e-9, atol=1e-9, msg=name)
