"""User-defined models that define the documented methods of ``Seq2Seq`` and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from flambeau import Learner, Predictor, TrainingOptions
from flambeau.errors import InputError
from flambeau_text import (
    AdaptiveForcing,
    Beam,
    Constant,
    Greedy,
    Linear,
    MinimumRisk,
    Sampling,
    TeacherForcing,
    TranslationData,
    translate,
)
from flambeau_text.models import Memory, Seq2Seq
from flambeau_text.translation.demo import dates_data

CHOICES: dict[str, Any] = {
    "device": "cpu", "probe": "off", "precision": "fp32", "batch_size": 16, "num_threads": 1,
    "lr": 0.01,
}  # fmt: skip


class TokenDecoder(Seq2Seq):
    """The smallest model: a GRU cell that reads token ids, under names of its own."""

    def __init__(self, source_vocab: int, target_vocab: int, size: int = 12) -> None:
        super().__init__()
        self.words_in = nn.Embedding(source_vocab, size)
        self.words_out = nn.Embedding(target_vocab, size)
        self.cell = nn.GRUCell(size, size)
        self.output = nn.Linear(size, target_vocab)

    def encode(self, source: Tensor, mask: Tensor) -> Memory:
        return Memory(self.words_in(source) * mask.unsqueeze(2), mask)

    def init_state(self, memory: Memory) -> Tensor:
        return memory.values.sum(1) / memory.mask.sum(1, keepdim=True)

    def advance(self, previous: Tensor, state: Tensor) -> tuple[Tensor, Tensor, None]:
        assert previous.dtype == torch.int64
        state = self.cell(self.words_out(previous), state)
        return state, state, None


class EmbeddingDecoder(TokenDecoder):
    """Takes embeddings too, and its state is a dictionary."""

    def init_state(self, memory: Memory) -> dict[str, Tensor]:  # type: ignore[override]
        return {"hidden": super().init_state(memory)}

    def target_embeddings(self) -> Tensor:
        return self.words_out.weight

    def advance(self, previous: Tensor, state: dict) -> tuple:  # type: ignore[override]
        if not previous.is_floating_point():
            previous = self.words_out(previous)
        hidden = self.cell(previous, state["hidden"])
        return hidden, {"hidden": hidden}, None


class ParallelDecoder(TokenDecoder):
    """Computes all positions at once, each from the token before it alone."""

    teacher_forcing_passes: ClassVar[int | None] = 1

    def __init__(self, source_vocab: int, target_vocab: int, size: int = 12) -> None:
        super().__init__(source_vocab, target_vocab, size)
        del self.cell
        self.calls = 0

    def advance(self, previous: Tensor, state: Tensor) -> tuple[Tensor, Tensor, None]:
        return torch.tanh(self.words_out(previous) + state), state, None

    def features(self, memory: Memory, previous: Tensor) -> tuple[Tensor, None]:
        self.calls += 1
        return torch.tanh(self.words_out(previous) + self.init_state(memory).unsqueeze(1)), None


MODELS = [TokenDecoder, EmbeddingDecoder, ParallelDecoder]


@pytest.fixture(scope="module")
def data() -> TranslationData:
    return dates_data(120, 0)


def learner(data: TranslationData, kind: type[TokenDecoder] = TokenDecoder, **more: Any) -> Learner:
    torch.manual_seed(0)
    values = Learner(data, quiet=True).plan.values
    vocabulary = data.model_arguments(data.preprocessor(values), values)
    model = kind(vocabulary["source_vocab"], vocabulary["target_vocab"])
    training = TrainingOptions(doctor=False, **more.pop("training", {}))
    choices = {**CHOICES, **more.pop("choices", {})}
    return Learner(data, model, choices=choices, training=training, quiet=True, **more)


def test_forward_gives_logits() -> None:
    model = TokenDecoder(9, 7)
    source, mask = torch.full((2, 3), 4), torch.ones(2, 3, dtype=torch.bool)
    assert model(source, mask, torch.full((2, 4), 2)).shape == (2, 4, 7)


@pytest.mark.parametrize("missing", ["encode", "init_state", "advance"])
def test_a_missing_method_is_named(missing: str) -> None:
    model = type("Incomplete", (TokenDecoder,), {missing: getattr(Seq2Seq, missing)})(9, 7)
    source, mask = torch.full((2, 3), 4), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(NotImplementedError, match=rf"Incomplete must define {missing}\("):
        model(source, mask, torch.full((2, 4), 2))


def assert_trained(run: Learner, epochs: int = 2) -> None:
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    rows = run.fit(epochs).rows
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    after = run.model.state_dict()
    assert all(not torch.equal(value, after[name]) for name, value in before.items())


FORCINGS = {
    "token": TeacherForcing(Constant(0.5)),
    "sequence": TeacherForcing(Constant(0.5), granularity="sequence"),
    "scheduled": TeacherForcing(Linear(1.0, 0.1, floor=0.1)),
    "sampled": TeacherForcing(Constant(0.5), feed="sample"),
    "two passes": TeacherForcing(Constant(0.5), passes=2),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", FORCINGS)
def test_it_trains_below_probability_1(
    data: TranslationData, kind: type[TokenDecoder], name: str
) -> None:
    run = learner(data, kind, choices={"teacher_forcing": FORCINGS[name]})
    assert_trained(run)
    assert run.history.column("teacher_forcing")[-1] < 1.0


def test_one_draw_per_batch(data: TranslationData) -> None:
    run = learner(data)
    run.task.teacher_forcing = TeacherForcing(lambda step: float(step % 2))  # type: ignore[attr-defined]
    assert_trained(run)


def test_adaptive_teacher_forcing(data: TranslationData) -> None:
    control = AdaptiveForcing(target_gap=0.0, gain=10.0, noise=0.0, warmup=0.0, floor=0.3)
    run = learner(data, training={"controllers": (control,)})
    assert_trained(run, 4)
    assert len(set(run.history.column("teacher_forcing"))) > 1


@pytest.mark.parametrize("feed", ["gumbel", "soft"])
def test_feeds_of_embeddings_need_target_embeddings(data: TranslationData, feed: str) -> None:
    forcing = TeacherForcing(Constant(0.5), feed=feed)  # type: ignore[arg-type]
    assert_trained(learner(data, EmbeddingDecoder, choices={"teacher_forcing": forcing}))
    # Refused in the first step, though the schedule begins at 1.
    forcing = TeacherForcing(Linear(1.0, 0.1), feed=feed)  # type: ignore[arg-type]
    run = learner(data, choices={"teacher_forcing": forcing})
    with pytest.raises(InputError, match=r"TokenDecoder takes token ids only: its target_embed"):
        run.fit(1)
    assert not run.history.step_losses


def test_parallel_features_are_used_where_declared(data: TranslationData) -> None:
    run = learner(data, ParallelDecoder, choices={"teacher_forcing": FORCINGS["token"]})
    run.fit(1)
    steps = len(run.history.step_losses)
    batches = sum(1 for _ in run.built.batches("valid"))
    # The check of the loss before the first step restores the attributes of the model.
    assert run.model.calls == 2 * steps + batches  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", MODELS)
def test_minimum_risk_training(data: TranslationData, kind: type[TokenDecoder]) -> None:
    run = learner(data, kind, training={"train_step": MinimumRisk(n_samples=2)})
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    losses = run.fit(1).step_losses
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert any(not torch.equal(v, before[n]) for n, v in run.model.state_dict().items())


@pytest.mark.parametrize("kind", MODELS)
def test_evaluation_search_and_export(
    data: TranslationData, kind: type[TokenDecoder], tmp_path: Path
) -> None:
    run = learner(data, kind, choices={"label_smoothing": 0.1})
    run.fit(2)
    assert {"loss", "bleu", "chrf"} <= run.evaluate("test").keys()
    texts = data.raw("valid")
    predictions = run.predict(texts)
    assert len(predictions) == len(texts)
    predictor = run.predictor()
    for strategy in (Greedy(), Beam(size=3, n_best=2, coverage_penalty=0.1), Sampling(seed=1)):
        found = translate(predictor, texts, strategy, replace_unknown=True)
        assert all(each.attention is None for each in found)
    assert "märz" in translate(predictor, texts[:1], phrases={0: ["märz"]})[0].text
    fresh = kind(run.model.words_in.num_embeddings, run.model.words_out.num_embeddings)  # type: ignore[attr-defined]
    loaded = Predictor.load(run.export(tmp_path / "model"), model=fresh)
    assert loaded.predict(texts) == predictions


def test_a_state_with_another_first_axis_is_refused(data: TranslationData) -> None:
    class LayersFirst(TokenDecoder):
        def init_state(self, memory: Memory) -> tuple[Tensor, int]:  # type: ignore[override]
            return super().init_state(memory).unsqueeze(0), 0

        def advance(self, previous: Tensor, state: tuple) -> tuple:  # type: ignore[override]
            features, hidden, _ = super().advance(previous, state[0][0])
            return features, (hidden.unsqueeze(0), state[1] + 1), None

    run = learner(data, LayersFirst)
    texts = data.raw("valid")[:3]
    assert len(translate(run.predictor(), texts, Greedy())) == 3
    with pytest.raises(InputError, match=r"shape \(1, 3, 12\) .* a batch of 3"):
        translate(run.predictor(), texts, Beam())


def test_reports_and_checks(data: TranslationData, tmp_path: Path) -> None:
    run = learner(data, choices={"teacher_forcing": FORCINGS["token"]})
    run.fit(1)
    assert run.doctor().codes == ("too-few-steps",)
    found = run.interpret("valid")
    page = found.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert ">Teacher forcing<" in page
    assert ">Attention<" not in page
