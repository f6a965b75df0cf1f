"""``translation`` at its smallest size: both sides do the same work, and the gate can fail."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from flambeau import Batch
from flambeau_bench.case import Comparison, Size
from flambeau_bench.cases import padded_loop
from flambeau_bench.cases.plain_rnn import PlainRnn
from flambeau_bench.cases.translation import (
    EQUAL_WITHIN,
    FLAMBEAU,
    PADDED,
    TOKENS_WITHIN,
    Translation,
    largest_loss_difference,
)
from flambeau_bench.cases.translation_sides import (
    EpochCounts,
    Stopwatch,
    TranslationSides,
    multi30k,
    synthetic_data,
)
from flambeau_bench.cases.translation_variant import TranslationVariant
from flambeau_bench.invalid_pairs import invalid_reasons
from flambeau_bench.measurement import Measurement
from flambeau_text import rnn
from flambeau_text.tokenization.tokenizer import PADDING_ID
from flambeau_text.translation.dataset import PairLoader

SIZE = Size(
    "quick",
    {
        "train": 48,
        "valid": 8,
        "searched": 16,
        "smallest": 4,
        "largest": 8,
    },
)


@pytest.fixture(autouse=True)
def _restore_the_generator() -> Iterator[None]:
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)


@pytest.fixture(scope="module")
def case() -> Translation:
    """Return a case that keeps its corpus and batch sizes between tests."""
    return Translation()


def comparison_of(case: Translation, variant: str) -> Comparison:
    [comparison] = [c for c in case.comparisons(SIZE) if c.variant == variant]
    return comparison


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", ["rnn fp32", "rnn bf16", "rnn bf16, flambeau forward", "transformer fp32"]
)
def test_both_sides_do_the_same_work(case: Translation, variant: str) -> None:
    comparison = comparison_of(case, variant)
    padded, candidate = (case.measure(comparison, side, SIZE, 1) for side in (PADDED, FLAMBEAU))
    assert invalid_reasons(padded, candidate, comparison.may_differ) == ""
    assert padded.samples == candidate.samples == SIZE["train"]
    assert padded.steps == candidate.steps
    assert padded.quality["tokens_per_step"] == candidate.quality["tokens_per_step"]
    assert float(candidate.quality["padding"]) < float(padded.quality["padding"])
    assert padded.order_hash != candidate.order_hash
    assert padded.settings["optimizer"] == candidate.settings["optimizer"] == "AdamW"
    assert candidate.settings["precision"] == variant.replace(",", "").split()[1]
    gate = case.gate(comparison, [(padded, candidate)])
    assert gate.passed, gate.reason
    assert "sentences per batch" in candidate.notes


@pytest.mark.slow
def test_a_skipped_batch_makes_the_pair_invalid(
    case: Translation, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = comparison_of(case, "rnn fp32")
    padded = case.measure(comparison, PADDED, SIZE, 0)
    all_batches = PairLoader.batches

    def skipping(loader: PairLoader, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        batches = all_batches(loader, epoch, start_step)
        return (batch for step, batch in enumerate(batches) if step != 1)

    monkeypatch.setattr(PairLoader, "batches", skipping)
    candidate = case.measure(comparison, FLAMBEAU, SIZE, 0)
    assert "the candidate skipped samples" in invalid_reasons(
        padded, candidate, comparison.may_differ
    )


@pytest.mark.slow
def test_a_loss_that_counts_padding_is_detected(
    case: Translation, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = case.sides("rnn fp32", SIZE)
    candidate = sides.flambeau_losses

    other = TranslationSides(sides.variant, SIZE)
    other.__dict__["batch_sizes"] = sides.batch_sizes
    counting = SimpleNamespace(cross_entropy=lambda logits, y, **_: F.cross_entropy(logits, y))
    monkeypatch.setattr(padded_loop, "F", counting)
    padded = other.padded_losses
    named = [
        {f"loss_on_equal_batches_{n}": x for n, x in enumerate(xs)} for xs in (padded, candidate)
    ]
    assert largest_loss_difference(*named) > 100 * EQUAL_WITHIN


# ---------------------------------------------------------------- the gate


GOOD = {
    "valid_loss": 5.0,
    "tokens_per_step": 500.0,
    "padding": 1.1,
    "loss_on_equal_batches_0": 9.0,
    "loss_on_equal_batches_1": 8.0,
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"valid_loss": 5.06},
        {"tokens_per_step": 516.0},
        {"tokens_per_step": 484.0},
        {"loss_on_equal_batches_1": 8.001},
        {"loss_on_equal_batches_1": float("nan")},
        {"valid_loss": float("nan")},
    ],
)
def test_each_part_of_the_gate_can_fail(wrong: dict[str, float]) -> None:
    case = Translation()
    comparison = comparison_of(case, "rnn fp32")
    baseline = Measurement({}, quality=GOOD)
    within = Measurement({}, quality={**GOOD, "valid_loss": 5.04, "tokens_per_step": 514.0})
    assert case.gate(comparison, [(baseline, within)]).passed
    worse = replace(within, quality={**GOOD, **wrong})
    assert not case.gate(comparison, [(baseline, worse)]).passed


def test_the_gate_compares_means_over_seeds() -> None:
    case = Translation()

    def pair(candidate: float) -> tuple[Measurement, Measurement]:
        worse = Measurement({}, quality={**GOOD, "valid_loss": candidate})
        return Measurement({}, quality=GOOD), worse

    comparison = comparison_of(case, "rnn fp32")
    assert case.gate(comparison, [pair(5.07), pair(5.02)]).passed
    assert not case.gate(comparison, [pair(5.07), pair(5.04)]).passed


def test_a_side_without_one_of_the_losses_is_an_error() -> None:
    fewer = {name: value for name, value in GOOD.items() if name != "loss_on_equal_batches_1"}
    with pytest.raises(KeyError):
        largest_loss_difference(GOOD, fewer)
    with pytest.raises(KeyError):
        largest_loss_difference(fewer, GOOD)


# ---------------------------------------------------------------- the padded loop


def pairs(lengths: list[tuple[int, int]]) -> list[padded_loop.TokenPair]:
    draws = torch.Generator().manual_seed(0)
    return [
        (torch.randint(4, 9, (n,), generator=draws), torch.randint(4, 9, (m,), generator=draws))
        for n, m in lengths
    ]


def test_batches_are_padded_to_their_longest_sentence() -> None:
    some = pairs([(2, 5), (4, 3)])
    source, target = padded_loop.padded(some)
    assert source.shape == (2, 4)
    assert target.shape == (2, 5)
    assert source[0].tolist() == [*some[0][0].tolist(), PADDING_ID, PADDING_ID]
    counts = EpochCounts.of([target])
    assert (counts.sentences, counts.tokens, counts.positions) == ((2,), (6,), 8)
    assert counts.padding == 8 / 6


def test_an_epoch_has_every_pair_once_in_a_fixed_order() -> None:
    some = [(torch.tensor([4 + n]), torch.tensor([4 + n])) for n in range(10)]
    first, second = (
        [source.flatten().tolist() for source, _ in padded_loop.shuffled(some, 4)] for _ in "ab"
    )
    assert first == second
    assert [len(batch) for batch in first] == [4, 4, 2]
    tokens = [token for batch in first for token in batch]
    assert sorted(tokens) == list(range(4, 14))
    assert tokens != sorted(tokens)


def test_padding_does_not_change_the_loss() -> None:
    torch.manual_seed(0)
    model = rnn(source_vocab=9, target_vocab=9, config={"embedding_dim": 6, "hidden_size": 8})
    model = model.double().eval()
    some, device = pairs([(2, 5), (4, 3), (1, 2)]), torch.device("cpu")
    total = 0.0
    for source, target in some:
        mask = torch.ones(1, len(source), dtype=torch.bool)
        logits = model(source[None], mask, target[None, :-1])[0].detach()
        total += float(F.cross_entropy(logits, target[1:], reduction="sum"))
    batched = padded_loop.evaluate(model, [padded_loop.padded(some)], device)
    # Sums of ten float64 numbers in another order.
    assert batched == pytest.approx(total / 7, rel=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_the_plain_model_equals_the_model(training: bool) -> None:
    torch.manual_seed(0)
    model = rnn(source_vocab=50, target_vocab=40, config={"embedding_dim": 16, "hidden_size": 12})
    plain = PlainRnn(model)
    assert {id(each) for each in plain.parameters()} == {id(each) for each in model.parameters()}
    source, target = padded_loop.padded(pairs([(7, 5), (3, 6), (1, 2)]))
    found = []
    for each in (model, plain):
        each.train(training).double()
        torch.manual_seed(1)  # dropout
        logits = each(source, source != PADDING_ID, target)
        gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
        found.append((logits, *gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("size", [{"attention": "dot"}, {"cell": "lstm"}, {"decoder_layers": 1}])
def test_other_model_structures_are_refused(size: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"does not implement|two GRU layers"):
        PlainRnn(rnn(source_vocab=9, target_vocab=9, config={"hidden_size": 8, **size}))


def test_the_padded_loop_learns_and_returns_step_losses() -> None:
    torch.manual_seed(0)
    size = {"embedding_dim": 6, "hidden_size": 8, "dropout": 0.0}
    model, device = rnn(source_vocab=9, target_vocab=9, config=size), torch.device("cpu")
    batch = padded_loop.padded(pairs([(2, 5), (4, 3), (1, 2)]))
    before = padded_loop.evaluate(model, [batch], device)
    optimizer = torch.optim.AdamW(model.parameters())
    losses = padded_loop.train(model, optimizer, [batch] * 20, 20, "fp32", device)
    # Without dropout the loss of the first step equals that of an evaluation, in fp32.
    assert float(losses[0]) == pytest.approx(before, rel=1e-6)
    assert len(losses) == 20
    assert padded_loop.evaluate(model, [batch], device) < before


# ---------------------------------------------------------------- equal steps


@pytest.mark.slow
@pytest.mark.parametrize("fastest", [8, 16, 32])
def test_steps_are_equal_near_the_fastest_batch_size(fastest: int) -> None:
    sides = TranslationSides(
        TranslationVariant("rnn", "fp32"), replace(SIZE, counts={**SIZE.counts, "train": 640})
    )
    sides.__dict__["speeds"] = {fastest: 2.0, 2 * fastest: 1.0}
    sentences, average_pairs = sides.batch_sizes
    assert sides.fastest == fastest
    assert abs(sentences - fastest) <= fastest / 8
    by_hand = len(padded_loop.shuffled(sides.pairs, sentences))
    learner = sides.learner(0, average_pairs).built.loader("train")
    assert by_hand == pytest.approx(learner.steps_per_epoch, rel=TOKENS_WITHIN)


def test_a_stopwatch_stops_before_an_evaluation() -> None:
    watch = Stopwatch(torch.device("cpu"))
    times = iter([1.0, 4.0])
    watch._clock = lambda: next(times)
    watch.start()
    watch.on_eval_start(None)  # type: ignore[arg-type]  # it reads no state
    assert watch.seconds == 3.0


# ---------------------------------------------------------------- data


def test_synthetic_sentences_vary_in_length() -> None:
    data, again = synthetic_data(SIZE), synthetic_data(SIZE)
    assert data.raw("train") == again.raw("train")
    assert len(data.split.train) == SIZE["train"]
    assert len(data.split.valid) == SIZE["valid"]
    lengths = [len(text.split()) for text in data.raw("train")]
    assert max(lengths) > 2 * min(lengths)


def test_the_first_pairs_of_multi30k_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "multi30k"
    folder.mkdir()
    for part, n in (("train", 6), ("val", 4)):
        for language in ("en", "de"):
            text = "".join(f"Line {row} {language}\n" for row in range(n))
            (folder / f"{part}.{language}.gz").write_bytes(gzip.compress(text.encode()))
    monkeypatch.setenv("FLAMBEAU_DATA", str(tmp_path))
    data = multi30k(Size("cpu", {"train": 5, "valid": 2}))
    assert data.raw("train") == [f"Line {row} en" for row in range(5)]
    assert data.references("valid") == ["Line 0 de", "Line 1 de"]
    assert data.options.lowercase
    assert Translation().skip_reason(Translation.sizes["cpu"]) == ""


def test_missing_data_give_a_skip_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    case = Translation()
    monkeypatch.delenv("FLAMBEAU_DATA", raising=False)
    assert "FLAMBEAU_DATA is not set" in case.skip_reason(case.sizes["cpu"])
    assert case.skip_reason(case.sizes["quick"]) == ""
    monkeypatch.setenv("FLAMBEAU_DATA", str(tmp_path))
    assert "does not exist" in case.skip_reason(case.sizes["cpu"])


def test_the_report_lists_the_batch_sizes_tried() -> None:
    case = Translation()
    record = {
        "case": "translation",
        "kind": "run",
        "phase": "pairs",
        "pair": 0,
        "variant": "rnn fp32",
        "size": {"name": "cpu"},
        "figures": {
            "tokens_per_s": 900.0,
            "tokens_per_s_at_16": 800.0,
            "tokens_per_s_at_32": 950.0,
        },
    }
    text = case.section([record], Path())
    assert "| cpu | rnn fp32 | 16 | 800 |" in text
    assert "| cpu | rnn fp32 | 32 | 950 |" in text
    # A failed gate leaves no figures.
    assert case.section([{**record, "figures": None}], Path()) == ""
