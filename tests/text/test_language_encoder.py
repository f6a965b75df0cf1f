"""Classifiers that start from a language model: weights, vocabulary, unfreezing and rates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flambeau import Learner, Predictor
from flambeau.errors import FlambeauError, PlanError
from flambeau.phases.recipes import gradual_unfreezing
from flambeau.training.optim.groups import parameter_groups
from flambeau_text import LanguageModelData, LanguageOptions, TextData, TextOptions
from flambeau_text.models.concat_pool import ConcatPoolEncoder
from flambeau_text.models.vocabulary_transplant import row_sources, transplanted

SIZES = {"embedding_dim": 10, "hidden_size": 12, "num_layers": 2}
WORDS = ["one", "two", "three", "four", "five", "six"]


def sentences(n: int, seed: int) -> list[str]:
    draws = np.random.default_rng(seed)
    return [" ".join(draws.choice(WORDS, 5)) for _ in range(n)]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = LanguageOptions(tokenizer="word")
    data = LanguageModelData.from_texts(sentences(60, 0), valid=6, options=options)
    learner = Learner(data, choices={"model_config": SIZES, "batch_size": 4, "probe": "off"})
    learner.fit(1)
    return learner.export(tmp_path_factory.mktemp("lm") / "model")


def labelled(export: Path | None, **options: Any) -> TextData:
    texts = sentences(40, 1)
    labels = ["odd" if row % 2 else "even" for row in range(40)]
    given = TextOptions(language_model=export, **options)
    return TextData.from_arrays(texts, labels, valid=8, options=given)


def encoder_of(learner: Learner) -> ConcatPoolEncoder:
    encoder: Any = learner.model.encoder
    assert isinstance(encoder, ConcatPoolEncoder)
    return encoder


def test_the_encoder_has_the_weights_and_tokens_of_the_language_model(export: Path) -> None:
    learner = Learner(labelled(export))
    assert learner.plan.values["architecture"] == "awd_lstm"
    assert learner.plan.values["weights"] == str(export.resolve())
    language: Any = Predictor.load(export)
    preprocessor: Any = learner.built.preprocessor
    assert preprocessor.tokenizer.as_json() == language.preprocessor.tokenizer.as_json()
    ids = torch.tensor([[3, *preprocessor.tokenizer.encode("one six two")]])
    own, theirs = encoder_of(learner).encoder.eval(), language.model.eval()
    torch.testing.assert_close(own.features(ids).features, theirs.features(ids).features)


def test_without_a_language_model_weights_are_random(export: Path) -> None:
    plain = Learner(labelled(None), "awd_lstm", choices={"model_config": SIZES})
    assert plain.plan.values["weights"] is None
    refused = Learner(labelled(export), choices={"weights": None})
    state = Predictor.load(export).model.state_dict()
    assert not torch.equal(
        encoder_of(refused).encoder.embedding.embedding.weight,
        state["embedding.embedding.weight"],
    )
    bag = Learner(labelled(export), "bag")
    assert bag.plan.values["weights"] is None


def test_the_plan_says_for_which_network_its_steps_were_measured() -> None:
    bag, recurrent = (
        Learner(labelled(None), name, quiet=True).plan["epochs"] for name in ("bag", "awd_lstm")
    )
    assert "about 500 sufficed for a bag" in bag.reason
    assert "not measured for awd_lstm" in recurrent.reason
    assert "suffice" not in recurrent.reason
    assert "overfit" not in recurrent.reason
    assert recurrent.confidence < bag.confidence


def test_another_vocabulary_keeps_rows_by_token(export: Path) -> None:
    texts = [*sentences(30, 1), *["seven eight one"] * 2, "eight two", "seven six"]
    labels = ["odd" if row % 2 else "even" for row in range(len(texts))]
    options = TextOptions(language_model=export, tokenizer="word")
    data = TextData.from_arrays(texts, labels, valid=4, seed=1, options=options)
    learner = Learner(data)
    language: Any = Predictor.load(export)
    known = language.preprocessor.tokenizer.vocab.get_stoi()
    theirs = language.model.embedding.embedding.weight
    preprocessor: Any = learner.built.preprocessor
    own = encoder_of(learner).encoder.embedding.embedding.weight
    tokens = preprocessor.tokenizer.vocab.get_itos()
    assert {"seven", "eight"} & set(tokens)
    for row, token in enumerate(tokens):
        expected = theirs[known[token]] if token in known else theirs.double().mean(0).float()
        torch.testing.assert_close(own[row], expected, msg=token)


def test_transplanted_rows_by_hand() -> None:
    sources = row_sources(["<unk>", "new", "b", "a"], ["<unk>", "a", "b"])
    assert sources == [0, -1, 2, 1]
    matrix = torch.tensor([[0.0, 3.0], [1.0, 0.0], [5.0, 6.0]])
    expected = torch.tensor([[0.0, 3.0], [2.0, 3.0], [5.0, 6.0], [1.0, 0.0]])
    torch.testing.assert_close(transplanted(matrix, sources), expected)
    bias = torch.tensor([3.0, 0.0, 6.0])
    torch.testing.assert_close(transplanted(bias, sources), torch.tensor([3.0, 3.0, 6.0, 0.0]))


def test_gradual_unfreezing_by_hand(export: Path) -> None:
    """One group more in each phase, rates lower by 2.6 per layer, slanted triangles."""
    learner = Learner(labelled(export))
    groups = list(parameter_groups(learner.model))
    assert groups == ["embedding", "lstm_0", "lstm_1", "head"]
    values = {**learner.plan.values, "epochs": 2, "lr": 0.01}
    phases = gradual_unfreezing(values, groups)
    assert [phase.trainable for phase in phases] == [
        ("head",),
        ("lstm_1", "head"),
        ("lstm_0", "lstm_1", "head"),
        None,
    ]
    assert [phase.epochs for phase in phases] == [1, 1, 1, 2]
    for phase in phases:
        assert phase.lr_scales == pytest.approx(
            {"head": 1.0, "lstm_1": 2.6**-1, "lstm_0": 2.6**-2, "embedding": 2.6**-3}
        )
        rate = phase.schedules["lr"]
        # 200 steps, the cut at 20: Howard and Ruder, equation 3, with ratio 32.
        for step in (0, 5, 10, 20, 110, 199):
            share = step / 20 if step < 20 else 1 - (step - 20) / (20 * (1 / 0.1 - 1))
            assert rate(step / 200) == pytest.approx(0.01 * (1 + share * 31) / 32, rel=1e-9)


def test_a_whole_run_trains_exports_and_predicts(export: Path, tmp_path: Path) -> None:
    learner = Learner(labelled(export), choices={"probe": "off", "batch_size": 8})
    history = learner.gradual_unfreeze(1)
    assert len(history.rows) == 4
    folder = learner.export(tmp_path / "classifier")
    spec = (folder / "flambeau.json").read_text()
    assert '"weights": null' in spec
    found = Predictor.load(folder).predict(["one two", "six"])
    assert [each.probabilities for each in found] == [
        each.probabilities for each in learner.predict(["one two", "six"])
    ]


def test_a_replaced_or_wrong_language_model_is_refused(export: Path, tmp_path: Path) -> None:
    copy = tmp_path / "lm"
    shutil.copytree(export, copy)
    data = labelled(copy)
    data.facts()
    other = Learner(
        LanguageModelData.from_texts(
            sentences(60, 9), valid=6, options=LanguageOptions(tokenizer="word")
        ),
        choices={"model_config": SIZES, "batch_size": 4},
    )
    shutil.rmtree(copy)
    other.export(copy)
    learner = Learner(data)
    with pytest.raises(FlambeauError, match="the export was replaced"):
        learner.model  # noqa: B018
    with pytest.raises(FlambeauError, match="does not fit the encoder"):
        Learner(labelled(export), choices={"model_config": {**SIZES, "hidden_size": 9}}).model  # noqa: B018
    with pytest.raises(PlanError, match="weights"):
        Learner(labelled(export), choices={"weights": "elsewhere"})
    decoder = Learner(
        LanguageModelData.from_texts(sentences(60, 9), valid=6), "decoder",
        choices={"model_config": {"depth": 1}},
    )  # fmt: skip
    folder = decoder.export(tmp_path / "decoder")
    with pytest.raises(FlambeauError, match="export of the architecture 'decoder'"):
        TextOptions(language_model=folder)
    with pytest.raises(FlambeauError, match="nothing"):
        TextOptions(language_model=tmp_path / "nothing")
