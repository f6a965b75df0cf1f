"""The report of a text classifier: attributions, baselines, scores by length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import Learner, Predictor
from flambeau.errors import ArgumentError
from flambeau_text import TextData, token_attributions
from flambeau_text.classification.report.baselines import NB_SVM, TFIDF, log_count_ratio
from flambeau_text.models.text_classifier import valid_positions

FILLER = ["film", "seen", "with", "rain", "on", "days"]


def made(n: int = 160, labels: str = "classes") -> TextData:
    draws = np.random.default_rng(0)
    texts, targets = [], []
    for row in range(n):
        words = draws.choice(FILLER, int(draws.integers(3, 20))).tolist()
        words.insert(int(draws.integers(len(words))), "lovely" if row % 2 else "dreadful")
        texts.append(" ".join(words))
        targets.append(["neg", "pos"][row % 2] if labels == "classes" else row % 2 + row / n)
    return TextData.from_arrays(texts, targets, valid=40)


@pytest.fixture(scope="module")
def learner() -> Learner:
    learner = Learner(made(), choices={"probe": "off"})
    learner.fit(6)
    return learner


@pytest.fixture(scope="module")
def predictor(learner: Learner, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(learner.export(tmp_path_factory.mktemp("export") / "model"))


def test_attributions_of_a_bag_add_up_to_its_output(predictor: Predictor) -> None:
    text = "a lovely film with rain"
    found = token_attributions(predictor, text, "pos")
    assert len(found.tokens) == 7  # with an end token on each side
    batch = predictor.preprocessor.encode([text])
    model = predictor.model
    output = model(batch.inputs["tokens"], batch.inputs["lengths"])[0, 1].detach()
    bias = model.head[-1].bias[1].detach()  # type: ignore[index]
    assert sum(found.values) == pytest.approx(float(output - bias), abs=1e-5)
    assert found.strongest(1)[0][0] == "lovely"
    assert dict(zip(found.tokens, found.values, strict=True))["lovely"] > 0
    against = token_attributions(predictor, text, "neg")
    assert dict(zip(against.tokens, against.values, strict=True))["lovely"] < 0
    assert token_attributions(predictor, text).output == "pos"


def test_attributions_of_a_recurrent_network_are_derivatives() -> None:
    """Scaling a token's vector by 1 + ε moves the output by ε times its attribution."""
    sizes = {"embedding_dim": 8, "hidden_size": 9, "num_layers": 2, "chunk": 3, "window": 60}
    learner = Learner(made(), "awd_lstm", choices={"model_config": sizes})
    model = learner.model.double().eval()
    predictor = Predictor(learner.built.preprocessor, model, learner.task)
    text = "lovely film seen with rain on days"
    found = token_attributions(predictor, text, "pos")
    batch = predictor.preprocessor.encode([text])
    ids = batch.inputs["tokens"][0].tolist()
    weight = model.encoder.encoder.embedding.embedding.weight  # type: ignore[union-attr]

    def output() -> float:
        with torch.no_grad():
            return float(model(batch.inputs["tokens"], batch.inputs["lengths"])[0, 1])

    for place, token in enumerate(ids):
        if ids.count(token) > 1:
            continue
        step, before = 1e-5, weight[token].detach().clone()
        moved = []
        for factor in (1 + step, 1 - step):
            with torch.no_grad():
                weight[token] = before * factor
            moved.append(output())
        with torch.no_grad():
            weight[token] = before
        assert (moved[0] - moved[1]) / (2 * step) == pytest.approx(found.values[place], rel=1e-5)


def test_attributions_of_a_users_module_and_what_is_refused(learner: Learner) -> None:
    class Mean(nn.Module):
        def __init__(self, vocab_size: int) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocab_size, 4)
            self.output = nn.Linear(4, 2, bias=False)

        def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
            valid = valid_positions(tokens, lengths).unsqueeze(2)
            return self.output((self.embedding(tokens) * valid).sum(1) / lengths.unsqueeze(1))

    torch.manual_seed(0)
    preprocessor = learner.built.preprocessor
    model = Mean(len(preprocessor.tokenizer)).eval()  # type: ignore[attr-defined]
    predictor = Predictor(preprocessor, model, learner.task)
    found = token_attributions(predictor, "lovely film", "neg")
    batch = preprocessor.encode(["lovely film"])
    expected = float(model(batch.inputs["tokens"], batch.inputs["lengths"])[0, 0].detach())
    assert sum(found.values) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ArgumentError, match="no output 'good'; it has neg, pos"):
        token_attributions(predictor, "lovely", "good")
    without = nn.Sequential(nn.Linear(1, 2))
    without.forward = lambda tokens, lengths: torch.zeros(1, 2, requires_grad=True)  # type: ignore[method-assign, assignment]
    with pytest.raises(ArgumentError, match="does not embed each token once"):
        token_attributions(Predictor(preprocessor, without, learner.task), "lovely")


def test_baselines_are_those_of_scikit_learn(learner: Learner) -> None:
    pipeline = pytest.importorskip("sklearn.pipeline")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    data = learner.data
    found = learner.interpret().baselines
    assert set(found) == {"majority class", TFIDF, NB_SVM}
    assert found["majority class"]["accuracy"] == 0.5
    assert found[NB_SVM]["accuracy"] == 1.0
    model = pipeline.make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b"),
        LogisticRegression(C=10.0, solver="liblinear", max_iter=200, random_state=0),
    )
    targets = data.targets  # type: ignore[attr-defined]
    train, valid = (targets.select(data.split.part(part)) for part in ("train", "valid"))
    model.fit(data.raw("train"), train.values.numpy())
    probability = torch.tensor(model.predict_proba(data.raw("valid")))
    expected = nn.functional.nll_loss(probability.log(), valid.values)
    assert found[TFIDF]["loss"] == pytest.approx(float(expected), rel=1e-4)


def test_the_log_count_ratio_by_hand() -> None:
    counts = np.array([[1, 0], [1, 1], [0, 1]])
    found = log_count_ratio(counts, np.array([True, True, False]))
    inside, outside = np.array([3, 2]) / 5, np.array([1, 2]) / 3
    np.testing.assert_allclose(found, np.log(inside) - np.log(outside))


def test_the_page_has_lengths_words_and_baselines(learner: Learner, tmp_path: Path) -> None:
    found = learner.interpret()
    page = found.report(tmp_path / "report.md").read_text()
    for text in ("By length", "Words", "lovely", NB_SVM, "Gradient × input"):
        assert text in page
    # Five groups of eight texts, from short to long.
    section = page[page.index("By length") : page.index("Words")]
    assert section.count("| 8 ") == 5
    numbers = Learner(made(labels="numbers"), choices={"probe": "off"})
    numbers.fit(2)
    other = numbers.interpret()
    assert set(other.baselines) == {"mean", TFIDF}
    assert "By length" in other.report(tmp_path / "numbers.md").read_text()
