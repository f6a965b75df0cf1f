"""From data to plan, training, evaluation, export and prediction."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau import Learner, Predictor, TrainingOptions
from flambeau.data.loader import LoaderOptions
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau.task.task import StepContext
from flambeau.training.step import train_step
from flambeau_text import (
    AdaptiveForcing,
    Beam,
    Greedy,
    InverseSigmoid,
    Linear,
    TeacherForcing,
    TranslationData,
    TranslationOptions,
    TranslationTask,
    corpus_score,
)
from flambeau_text.decoding.strategy import Strategy
from flambeau_text.forcing import unroll
from flambeau_text.translation import task as task_module
from flambeau_text.translation.demo import dates_data
from flambeau_text.translation.rules import RULES
from flambeau_text.translation.task import token_overlap
from flambeau_text.translation.translate import translate

_IN_RUN = ("loss", "perplexity", "bleu", "teacher_forced_overlap", "free_running_overlap",
           "free_running_gap", "free_running_gap_error")  # fmt: skip
SMALL = {"embedding_dim": 24, "hidden_size": 24, "dropout": 0.1}
CHOICES: dict[str, Any] = {
    "device": "cpu", "probe": "off", "precision": "fp32", "batch_size": 16, "model_config": SMALL,
    "num_threads": 1,
}  # fmt: skip


def learner(n: int = 120, seed: int = 0, **more: Any) -> Learner:
    choices = {**CHOICES, **more.pop("choices", {})}
    training = TrainingOptions(doctor=False, **more.pop("training", {}))
    torch.manual_seed(seed)  # dropout draws from torch's own generator
    return Learner(
        dates_data(n, 0), choices=choices, training=training, seed=seed, quiet=True, **more
    )


# ---------------------------------------------------------------- the plan


def test_the_plan_and_its_reasons() -> None:
    plan = Learner(dates_data(60, 0), quiet=True, choices={"device": "cpu"}).plan
    assert plan["tokenizer"].source == "user"  # set in the demo's options
    assert plan["architecture"].value == "rnn"
    assert plan["label_smoothing"].value == 0.0
    data = TranslationData.from_pairs([(f"word{n} a", f"wort{n} ein") for n in range(3000)])
    plan = Learner(data, quiet=True, choices={"device": "cpu"}).plan
    assert plan["tokenizer"].value == "bpe"
    assert "2,701 distinct words and the target side 2,701" in plan["tokenizer"].reason
    assert plan["vocab_size"].value == 1_000
    assert plan["shared_vocab"].value is False


@pytest.mark.parametrize(
    ("device", "n_train", "wanted"),
    [
        ("cpu", 29_000, "rnn"),
        ("cpu", 2_000_000, "rnn"),
        ("cuda:0", 29_000, "rnn"),
        ("cuda:0", 2_000_000, "transformer"),
    ],
)
def test_the_architecture_depends_on_device_and_pairs(
    device: str, n_train: int, wanted: str
) -> None:
    rule = next(rule for rule in RULES if rule.key == "architecture")
    choice = rule.decide({"n_train": n_train}, {"device": device})
    assert choice.value == wanted
    assert {choice.value, *choice.alternatives} == {"rnn", "transformer"}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"tokenizer": "bytes"}, "one of bpe, unigram, word, character"),
        ({"vocab_size": 3}, "a whole number of tokens, at least 5"),
        ({"label_smoothing": 1.0}, "a number of at least 0 and below 1"),
        ({"decoding": "beam"}, "Greedy, Beam or Sampling, or the values"),
        ({"decoding": {"kind": "beam", "size": 0}}, "size of at least 1"),
        ({"teacher_forcing": {"schedule": {"kind": "lin"}}}, "Unknown schedule 'lin'"),
        ({"shared_vocab": "yes"}, "True or False"),
        ({"model_config": 256}, "fields of RnnConfig"),
    ],
)
def test_invalid_choices_raise(choices: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        learner(choices=choices)


# ---------------------------------------------------------------- training and evaluation


def test_fit_evaluate_predict_and_export(tmp_path: Path) -> None:
    run = learner()
    history = run.fit(2)
    row = history.rows[-1]
    names = {f"valid_{n}" for n in _IN_RUN}
    assert names <= row.keys()
    assert row["teacher_forcing"] == 1.0
    assert row["train_loss"] < history.rows[0]["train_loss"]
    scores = run.evaluate("test")
    assert {"loss", "bleu", "bleu_lower", "chrf", "perplexity"} == scores.keys()
    texts = run.data.raw("test")
    predictions = run.predict(texts)
    assert [str(each) for each in predictions] == [each.text for each in predictions]
    assert run.predict(texts[0]).text == predictions[0].text
    # Evaluation scores the predictions against the references in the data.
    wanted = corpus_score([each.text for each in predictions], run.data.references("test"))
    assert scores["bleu"] == pytest.approx(wanted.value, abs=1e-9)
    assert run.task.signatures["bleu"] == f"{wanted.signature}|search:beam 5"
    loaded = Predictor.load(run.export(tmp_path / "model"))
    assert loaded.predict(texts) == predictions
    with pytest.raises(InputError, match="Item 1: the text is empty"):
        loaded.predict([texts[0], " "])


def test_loss_is_per_token_and_perplexity_unsmoothed() -> None:
    run = learner(choices={"label_smoothing": 0.1})
    found = run.evaluate("valid")
    total = plain = count = 0.0
    model = run.model.eval()
    for batch in run.built.batches("valid"):
        words = batch.targets["target"]
        with torch.no_grad():
            logits = model(batch.inputs["source"], batch.masks["source"], words[:, :-1])
        reference = batch.targets["target"][:, 1:]
        logs = logits.log_softmax(-1)
        kept = reference != 1
        own = -logs.gather(2, reference.unsqueeze(2)).squeeze(2)[kept]
        spread = -(logs.sum(-1) - logs[..., 1])[kept] / (logs.shape[-1] - 1)
        total += float((0.9 * own + 0.1 * spread).sum())
        plain += float(own.sum())
        count += int(kept.sum())
    assert found["loss"] == pytest.approx(total / count, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(plain / count), rel=1e-5)


def test_bleu_does_not_use_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """BLEU is unchanged when the decoder's reference inputs are replaced."""
    # The plan accepts the object as well as its JSON values, and stores the latter.
    forcing = TeacherForcing(Linear(0.5))
    run = learner(choices={"teacher_forcing": forcing})
    assert run.plan["teacher_forcing"].value == forcing.as_json()
    assert run.task.teacher_forcing == forcing  # type: ignore[attr-defined]
    before = run.evaluate("valid")["bleu"]
    calls: list[float] = []
    plain = task_module.decoder_features

    def spied(model: Any, memory: Any, words: Any, p: float, *more: Any) -> Any:
        calls.append(p)
        return plain(model, memory, torch.full_like(words, 4), p, *more)

    monkeypatch.setattr(task_module, "decoder_features", spied)
    monkeypatch.setattr(unroll, "reference_positions", None)  # nothing is drawn in evaluation
    after = run.evaluate("valid")
    assert after["bleu"] == before
    assert set(calls) == {1.0}
    run.predict(run.data.raw("valid"))
    assert len(calls) == 1


def test_a_run_decodes_every_given_number_of_evaluations() -> None:
    run = learner()
    run.task.decode_every = 2  # type: ignore[attr-defined]
    rows = run.fit(4).rows
    assert ["valid_bleu" in row for row in rows] == [False, True, False, True]
    assert [row.get("search") for row in rows] == [None, "greedy", None, "greedy"]


def test_lowercase_applies_to_the_predictions() -> None:
    pairs = [(f"Word{n} A", f"Wort{n} EIN") for n in range(40)]
    options = TranslationOptions(lowercase=True, tokenizer="word")
    run = Learner(
        TranslationData.from_pairs(pairs, options=options), choices=CHOICES, quiet=True,
        training=TrainingOptions(doctor=False),
    )  # fmt: skip
    run.fit(1)
    text = str(run.predict("Word3 A"))
    assert text == text.lower()


def test_search_outputs_and_other_models_raise() -> None:
    run = learner()
    batch = next(run.built.batches("valid"))
    with pytest.raises(InputError, match="outputs of a search have no loss"):
        run.task.loss(run.task.predict(run.model.eval(), batch, StepContext("predict")), batch)
    with pytest.raises(InputError, match="Linear is not"):
        run.task.forward(torch.nn.Linear(2, 2), batch, StepContext())


def test_overlap_is_the_f1_of_multisets() -> None:
    assert token_overlap([4, 5, 6, 3], [6, 5, 4, 3, 1]) == 1.0
    assert token_overlap([4, 5, 3], [4, 7, 8, 9, 3]) == pytest.approx(2 * 1 / (2 + 4))
    assert token_overlap([4, 3], [5, 3]) == 0.0
    assert token_overlap([3], [3]) == 1.0


# ---------------------------------------------------------------- exactness


@pytest.mark.parametrize("architecture", ["rnn", "transformer"])
def test_accumulated_ragged_batches_equal_one_batch(architecture: str) -> None:
    """Gradients of 1×32 and 4×8 sentences of different lengths, to 1e-12 in float64."""
    run = learner(
        choices={
            "architecture": architecture,
            "model_config": {"dropout": 0.0},
            "label_smoothing": 0.1,
        }
    )
    model, task = run.model.double(), run.task
    data: Any = run.built.dataset("train")
    whole = [data.batch(torch.arange(32))]
    parts = [data.batch(rows) for rows in torch.arange(32).split(8)]
    found = []
    for batches in (whole, parts):
        train_step(model, batches, task, _Step())  # type: ignore[arg-type]
        found.append({name: value.grad for name, value in model.named_parameters()})
        for value in model.parameters():
            value.grad = None
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-12, rtol=0)


class _Step:
    """As much of a ``Step`` as ``train_step`` needs."""

    context = StepContext("train", values={"teacher_forcing": 1.0})
    needs_closure = False

    @staticmethod
    def autocast() -> Any:
        return torch.autocast("cpu", enabled=False)

    @staticmethod
    def forward(model: torch.nn.Module, batch: Any, task: Any) -> Any:
        return task.forward(model, batch, _Step.context)

    @staticmethod
    def total_weight(weight: float) -> float:
        return weight

    @staticmethod
    def backward(loss: torch.Tensor, weight: float) -> None:
        (loss / weight).backward()

    @staticmethod
    def update(loss: torch.Tensor) -> None:
        """Keep the gradients."""


FORCED = {"teacher_forcing": TeacherForcing(InverseSigmoid(5.0), "sample").as_json()}


def test_a_resumed_run_has_the_same_decoder_inputs(tmp_path: Path) -> None:
    """Schedule and draws continue: bitwise the weights of an uninterrupted run."""
    from flambeau.callbacks import Checkpointing
    from flambeau.training import Callback

    class EnoughError(Exception):
        pass

    class Stop(Callback):
        def on_step_end(self, state: Any) -> None:
            if state.position.step == 8:
                raise EnoughError

    whole = learner(choices=FORCED)
    whole.fit(2)
    assert whole.history.column("teacher_forcing")[-1] == pytest.approx(
        InverseSigmoid(5.0)(len(whole.history.step_losses) - 1)
    )
    interrupted = learner(
        choices=FORCED, callbacks=[Checkpointing(every_s=1e-9), Stop()], folder=tmp_path
    )
    with pytest.raises(EnoughError):
        interrupted.fit(2)
    resumed = learner(choices=FORCED, folder=tmp_path)
    resumed.resume()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert list(resumed.history.step_losses) == list(whole.history.step_losses)


def test_decoder_inputs_do_not_depend_on_the_batch() -> None:
    """A sentence has the same features alone and in a batch."""
    run = learner(choices={**FORCED, "model_config": {**SMALL, "dropout": 0.0}})
    task, model = run.task, run.model.double().eval()
    data: Any = run.built.dataset("train")
    context = StepContext("train", values={"teacher_forcing": 0.4}, seed=3, epoch=1)
    rows = torch.tensor([7, 3, 30, 12])
    together = task.forward(model, data.batch(rows), context)
    for index, row in enumerate(rows.tolist()):
        alone = task.forward(model, data.batch(torch.tensor([row])), context)
        count = alone.features.shape[1]
        torch.testing.assert_close(
            together.features[index, :count], alone.features[0], atol=1e-12, rtol=0
        )


def test_bf16_reaches_the_loss_of_fp32() -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        run = learner(choices={"precision": precision})
        losses.append(run.fit(2).rows[-1]["train_loss"])
    # bf16 keeps 8 bits; both runs have the same initial weights and batches.
    assert losses[1] == pytest.approx(losses[0], rel=0.03)


# ---------------------------------------------------------------- teacher forcing in a run


def test_the_controller_sets_the_value_of_the_run() -> None:
    control = AdaptiveForcing(target_gap=0.0, gain=10.0, noise=0.0, warmup=0.0, floor=0.3)
    run = learner(training={"controllers": (control,)})
    rows = run.fit(4).rows
    found = [row["teacher_forcing"] for row in rows]
    assert found[0] == 1.0
    for before, after in pairwise(rows):
        gap = 1 - before["valid_free_running_overlap"] / before["valid_teacher_forced_overlap"]
        assert before["valid_free_running_gap"] == pytest.approx(gap)
        aim = max(0.3, min(1.0, 1.0 - 10.0 * gap))
        assert after["teacher_forcing"] == pytest.approx((before["teacher_forcing"] + aim) / 2)
    assert len(set(found)) > 1


def test_a_user_defined_schedule_is_set_on_the_task(tmp_path: Path) -> None:
    run = learner()
    run.task.teacher_forcing = TeacherForcing(lambda step: max(0.0, 1.0 - step / 10))  # type: ignore[attr-defined]
    run.fit(1)
    steps = len(run.history.step_losses)
    assert run.history.column("teacher_forcing") == [pytest.approx(max(0, 1 - (steps - 1) / 10))]
    assert Predictor.load(run.export(tmp_path / "model")).task.teacher_forcing == TeacherForcing()


# ---------------------------------------------------------------- translate


def test_translate_keeps_the_order_and_has_attention() -> None:
    run = learner()
    run.fit(1)
    texts = run.data.raw("valid")
    found = translate(run.predictor(), texts)
    assert [each.text for each in found] == [each.text for each in run.predict(texts)]
    for text, each in zip(texts, found, strict=True):
        assert each.source_tokens == (*text.split(), "<eos>")
        assert each.tokens[-1] == "<eos>"
        assert each.attention is not None
        assert each.attention.shape == (len(each.tokens), len(each.source_tokens))
        torch.testing.assert_close(each.attention.sum(1), torch.ones(len(each.tokens)))
    best = translate(run.predictor(), texts[:2], Beam(size=4, n_best=3))
    assert [len(each.alternatives) for each in best] == [2, 2]
    assert best[0].score >= best[0].alternatives[0].score


def test_translate_with_phrases_and_unknown_words() -> None:
    run = learner()
    run.fit(1)
    texts = run.data.raw("valid")[:3]
    found = translate(run.predictor(), texts, phrases={1: ["zwei und zwanzig", "märz"]})
    assert "zwei und zwanzig" in found[1].text
    assert "märz" in found[1].text
    assert found[0].text == str(run.predict(texts[0]))
    with pytest.raises(InputError, match="'xylophon' cannot be generated"):
        translate(run.predictor(), texts, phrases={0: ["xylophon"]})
    with pytest.raises(InputError, match="phrases has the index 7"):
        translate(run.predictor(), texts, phrases={7: ["märz"]})
    with pytest.raises(ArgumentError, match="need beam search, but the strategy is Greedy"):
        translate(run.predictor(), texts, Greedy(), phrases={0: ["märz"]})
    with pytest.raises(ArgumentError, match=r"single text\. Pass a list"):
        translate(run.predictor(), texts[0])
    with pytest.raises(ArgumentError, match=r"text 0 are a single text. Pass a list: \['märz'\]"):
        translate(run.predictor(), texts, phrases={0: "märz"})
    with pytest.raises(ArgumentError, match="phrases is a list"):
        translate(run.predictor(), texts, phrases=[["märz"]])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"not a Learner. Pass learner\.predictor\(\)"):
        translate(run, texts)  # type: ignore[arg-type]


def test_an_unknown_token_is_replaced_by_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    run = learner()
    text = run.data.raw("valid")[0]
    source = text.split()
    from flambeau_text.decoding.result import SearchResult
    from flambeau_text.translation import translate as module

    known = run.task.target.encode("am")[0]  # type: ignore[attr-defined]
    weights = torch.zeros(1, 1, 3, len(source) + 1)
    weights[0, 0, 0, 1] = 1.0
    weights[0, 0, 1, len(source)] = 0.6  # the end token
    weights[0, 0, 1, 2] = 0.4
    tokens = torch.tensor([[[known, 0, 3]]])
    result = SearchResult(tokens, torch.zeros(1, 1), torch.zeros(1, 1), weights)
    monkeypatch.setattr(module, "search", lambda *given: result)
    assert translate(run.predictor(), [text])[0].text == "am <unk>"
    found = translate(run.predictor(), [text], replace_unknown=True)[0]
    with pytest.raises(ArgumentError, match="replace_unknown must be True or False, not 'no'"):
        translate(run.predictor(), [text], replace_unknown="no")  # type: ignore[arg-type]
    assert found.text == f"am {source[2]}"


def test_errors_name_the_index_of_the_text() -> None:
    run = learner()
    texts = [*run.data.raw("valid")[:3], "  "]
    with pytest.raises(InputError, match="Item 3: the text is empty"):
        translate(run.predictor(), texts)


def test_the_token_budget_follows_the_plan() -> None:
    run = learner(choices={"batch_size": 32})
    wide = run.built.loader("train").steps_per_epoch
    narrow = learner(choices={"batch_size": 8}).built.loader("train").steps_per_epoch
    assert narrow > 2 * wide
    data: Any = run.built.dataset("train")
    assert data.loader(LoaderOptions(32, shuffle=True)).steps_per_epoch == wide


def test_invalid_task_arguments_raise() -> None:
    run = learner()
    target = run.task.target  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="label_smoothing must be at least 0"):
        TranslationTask(target=target, label_smoothing=1.0)
    with pytest.raises(InputError, match="decode_every and max_decoded"):
        TranslationTask(target=target, decode_every=0)
    assert isinstance(TranslationTask(target=target).decoding, Strategy)


def test_summary_lists_the_layers_of_a_translation_model() -> None:
    run = learner()
    text = str(run.summary())
    assert "GRU" in text
    assert f"{sum(value.numel() for value in run.model.parameters()):,} parameters" in text
