"""Language modelling: loss, scores, state carried between batches, generation, exports."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from flambeau import Batch, Callback, Learner, Predictor
from flambeau.data import LoaderOptions
from flambeau.errors import ArgumentError, ArtefactError, InputError
from flambeau.task.task import StepContext
from flambeau_text.decoding import Beam, Greedy, Sampling
from flambeau_text.language import LanguageModelData, LanguageModelTask, LanguageOptions
from flambeau_text.language.generate import generate
from flambeau_text.language.stream import NEXT, TOKENS
from flambeau_text.language.task import LanguageOutput
from flambeau_text.models import AwdLstm, awd_lstm
from flambeau_text.tokenization import CharacterTokenizer

LETTERS = CharacterTokenizer.fit(["abcdefgh "])
SMALL = {"embedding_dim": 8, "hidden_size": 12, "num_layers": 2}


def network(**dropout: float) -> AwdLstm:
    torch.manual_seed(0)
    none = dict.fromkeys(("output", "hidden", "input", "embedding", "weight"), 0.0)
    return awd_lstm(vocab_size=len(LETTERS), config={**SMALL, "dropout": {**none, **dropout}})


def some_data(n: int = 24) -> LanguageModelData:
    draws = torch.Generator().manual_seed(0)
    texts = []
    for _ in range(n):
        length = int(torch.randint(3, 30, (), generator=draws))
        picks = torch.randint(0, 6, (length,), generator=draws).tolist()
        texts.append("".join("abcdef"[at] * 2 for at in picks) + "\nab ab\n")
    return LanguageModelData.from_texts(
        texts, valid=4, test=4, options=LanguageOptions(tokenizer="character")
    )


def learner(
    data: LanguageModelData | None = None, architecture: str = "awd_lstm", **options: object
) -> Learner:
    torch.manual_seed(0)
    config = SMALL if architecture == "awd_lstm" else {"depth": 1, "window": 12}
    choices = {"model_config": config, "bptt": 9, "batch_size": 4, "keep_best": None}
    return Learner(
        data or some_data(), architecture, seed=0, quiet=True, choices=choices, **options
    )


def batch_of(tokens: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> Batch:
    return Batch({TOKENS: tokens}, {NEXT: targets}, {TOKENS: mask}, weight=float(mask.sum()))


# ---------------------------------------------------------------- loss


def test_regularisation_equals_a_loop_over_positions() -> None:
    torch.manual_seed(1)
    raw, features = torch.randn(2, 4, 3).double(), torch.randn(2, 4, 3).double()
    mask = torch.tensor([[True] * 4, [True, True, True, False]])
    targets = torch.where(mask, 5, 1)
    output = nn.Linear(3, len(LETTERS)).double()
    task = LanguageModelTask(tokenizer=LETTERS, alpha=2.0, beta=3.0)
    found = LanguageOutput(features, raw, output, in_training=True)
    batch = batch_of(targets, targets, mask)
    total, count = task.loss(found, batch)
    plain, _ = task.loss(LanguageOutput(features, raw, output, in_training=False), batch)
    squares = [float(features[r, p].square().mean()) for r, p in mask.nonzero().tolist()]
    steps = [
        float((raw[r, p] - raw[r, p - 1]).square().mean()) for r, p in mask.nonzero().tolist() if p
    ]
    extra = 2 * sum(squares) / len(squares) + 3 * sum(steps) / len(steps)
    assert float(count) == 7
    assert float((total - plain).detach()) == pytest.approx(
        7 * extra, rel=1e-6
    )  # computed in float32


def test_one_position_has_no_temporal_regularisation() -> None:
    raw = torch.randn(2, 1, 3)
    mask = torch.ones(2, 1, dtype=torch.bool)
    targets = torch.full((2, 1), 5)
    output = nn.Linear(3, len(LETTERS))
    losses = []
    for beta in (0.0, 5.0):
        task = LanguageModelTask(tokenizer=LETTERS, alpha=0.0, beta=beta)
        found = LanguageOutput(raw, raw, output, in_training=True)
        losses.append(task.loss(found, batch_of(targets, targets, mask))[0])
    assert torch.equal(*losses)


def test_the_history_has_the_loss_without_regularisation() -> None:
    of = learner()
    of.fit(1)
    assert of.history.column("train_nll")[0] < of.history.column("train_loss")[0]


# ---------------------------------------------------------------- evaluation


def test_evaluation_equals_one_pass_over_the_text() -> None:
    data = some_data()
    of = learner(data)
    of.fit(1)
    found = of.evaluate("test")
    fitted = of.built.preprocessor
    stream = fitted.stream(data.raw("test"))
    # As many rows as the learner's loader has, each read in one pass.
    batches = list(
        data.dataset("test", fitted, {"bptt": 10_000}).loader(LoaderOptions(4)).batches(0)
    )
    assert len(batches) == 1
    model = of.model.eval()
    with torch.no_grad():
        logits, _ = model(batches[0].inputs[TOKENS])
    targets = batches[0].targets[NEXT]
    total = float(
        nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=1, reduction="sum"
        )
    )
    n = len(stream.tokens)
    text = "".join(data.raw("test"))
    assert found["loss"] == pytest.approx(total / n, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(total / n), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(total / math.log(2) / len(text), rel=1e-5)
    words = len(text.split()) + text.count("\n")
    assert found["word_perplexity"] == pytest.approx(math.exp(total / words), rel=1e-4)


def test_state_is_carried_in_evaluation() -> None:
    data = some_data()
    of = learner(data)
    batches = list(
        data.dataset("valid", of.built.preprocessor, {"bptt": 5})
        .loader(LoaderOptions(2))
        .batches(0)
    )
    task, model = of.task, of.model.eval()
    with torch.no_grad():
        carried = task.evaluate(model, batches, StepContext("evaluate"))["loss"]
        fresh = [task.evaluate(model, [each], StepContext("evaluate"))["loss"] for each in batches]
    weights = [each.weight for each in batches]
    mean = sum(w * x for w, x in zip(weights, fresh, strict=True)) / sum(weights)
    assert carried != pytest.approx(mean, rel=1e-6)


def test_all_scores_are_better_when_lower() -> None:
    task = LanguageModelTask(tokenizer=LETTERS)
    assert set(task.score_modes().values()) == {"min"}


# ---------------------------------------------------------------- training


class Stop(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, state: object) -> None:
        if state.position.step == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("architecture", "at"), [("awd_lstm", 3), ("awd_lstm", 11), ("decoder", 4)]
)
def test_a_run_resumes_inside_a_document(tmp_path: Path, architecture: str, at: int) -> None:
    whole = learner(architecture=architecture)
    whole.fit(2)
    stopped = learner(architecture=architecture, callbacks=[Stop(at)], folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(2)
    resumed = learner(architecture=architecture, folder=tmp_path)
    resumed.resume()
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert list(resumed.history.step_losses) == list(whole.history.step_losses)


def test_it_learns_a_repeated_text() -> None:
    data = LanguageModelData.from_texts(
        ["abcd efgh\n" * (7 + at) for at in range(12)],
        valid=["abcd efgh\n" * 4],
        options=LanguageOptions(tokenizer="character"),
    )
    of = Learner(data, seed=0, quiet=True, choices={"bptt": 20, "batch_size": 7})
    of.fit(12, lr=0.02)
    assert of.evaluate("valid")["perplexity"] < 1.5
    of.task.decoding, of.task.max_tokens = Greedy(), 9
    assert of.predict("abcd").text == " efgh\nabc"


# ---------------------------------------------------------------- generation


@torch.no_grad()
def test_greedy_generation_equals_a_loop() -> None:
    model = network().eval()
    prompt = torch.tensor([[3, 5, 6]])
    found = generate(model, prompt, torch.ones(1, 3, dtype=torch.bool), 8, Greedy())
    tokens = prompt
    for at in range(8):
        logits = model(tokens)[0][:, -1].clone()
        logits[:, [1, 2]] = -torch.inf
        token = logits.argmax(1, keepdim=True)
        assert int(found.tokens[0, at]) == int(token)
        expected = logits.log_softmax(1).gather(1, token)
        assert float(found.log_probs[0, at]) == pytest.approx(float(expected), abs=1e-5)
        tokens = torch.cat([tokens, token], 1)


@pytest.mark.parametrize("strategy", [Greedy(), Sampling(seed=3, temperature=0.7, top_p=0.8)])
def test_prompts_of_any_length_continue_as_they_do_alone(strategy: Greedy | Sampling) -> None:
    of = learner()
    of.fit(1)
    of.task.decoding, of.task.max_tokens = strategy, 12
    prompts = ["a", "abcd ab", "", "ab\n", "ef", "abcd ab"]
    together = of.predict(prompts)
    assert [str(each) for each in together] == [str(of.predict(each)) for each in prompts]
    assert together[1] == together[5]  # equal prompts: the draws depend on the text


def test_the_space_between_prompt_and_continuation_is_kept() -> None:
    from flambeau_text.tokenization import WordTokenizer

    words = WordTokenizer.fit(["a dog runs"])
    task = LanguageModelTask(tokenizer=words, max_tokens=2)
    outputs = {
        "before": torch.tensor([*words.encode("dog"), 3]),
        "tokens": torch.tensor([words.encode("runs a"), words.encode("a dog")]),
        "log_probs": torch.zeros(2, 2),
        "lengths": torch.tensor([2, 2]),
    }
    assert [each.text for each in task.decode(outputs)] == [" runs a", "a dog"]


def test_settings_of_the_command_line_are_used() -> None:
    task = LanguageModelTask(tokenizer=LETTERS)
    assert task.for_prediction({}) is task
    changed = task.for_prediction({"temperature": 0.5, "top_k": 3, "max_tokens": 7})
    assert changed.decoding == Sampling(temperature=0.5, top_k=3, top_p=0.9)
    assert changed.max_tokens == 7
    assert task.for_prediction({"temperature": 0.0}).decoding == Greedy()
    assert task.max_tokens == 50


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"decoding": Beam()}, "needs Greedy or Sampling"),
        ({"alpha": -1.0}, "alpha must be"),
        ({"beta": math.nan}, "beta must be"),
        ({"max_tokens": 0}, "max_tokens must be"),
    ],
)
def test_invalid_settings_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LanguageModelTask(tokenizer=LETTERS, **values)


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(ArgumentError, match="derived from"):
        Learner(some_data(), nn.Linear(2, 2), quiet=True).fit(1)


# ---------------------------------------------------------------- exports


def test_an_export_continues_prompts_as_the_learner_does(tmp_path: Path) -> None:
    of = learner()
    of.fit(1)
    predictor = Predictor.load(of.export(tmp_path / "model"))
    prompts = ["ab", "cdcd", "a a\n"]
    assert predictor.predict(prompts) == of.predict(prompts)


def test_a_model_is_trained_further_with_its_vocabulary(tmp_path: Path) -> None:
    of = learner()
    of.fit(1)
    exported = of.export(tmp_path / "model")
    texts = ["gh gh gh\n"] * 3 + ["ab\n"] * 3
    other = LanguageModelData.from_texts(
        texts, valid=["ab\n"], options=LanguageOptions(like=exported)
    )
    further = Learner(other, start=exported, quiet=True)
    assert len(further.built.preprocessor.tokenizer) == len(of.built.preprocessor.tokenizer)
    assert torch.equal(further.model.output.weight, of.model.output.weight)
    others = ["ghi jkl\n"] * 3 + ["ij\n"] * 3  # as many letters, but others
    with pytest.raises(ArtefactError, match="another vocabulary"):
        fresh = LanguageModelData.from_texts(
            others, valid=["gh\n"], options=LanguageOptions(tokenizer="character")
        )
        Learner(fresh, quiet=True, choices={"model_config": SMALL}).load(exported)


@pytest.mark.parametrize("item", [3, None, b"ab", "a\ud800"])
def test_prompts_that_are_no_text_are_refused(item: object) -> None:
    with pytest.raises(InputError, match="Item 0"):
        learner().predict([item])
