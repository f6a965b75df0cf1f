"""Language models and classifiers that read texts backwards, and exports that are combined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from flambeau import Learner, Predictor, TensorData
from flambeau.artefact.combine import combine
from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError, ArtefactError, InputError
from flambeau_text import LanguageModelData, LanguageOptions, TextData, TextOptions, WordTokenizer
from flambeau_text.classification.preprocess import TextPreprocessor
from flambeau_text.tokenization import tokenizer_from_json
from flambeau_text.tokenization.backward import BackwardTokenizer

SIZES = {"embedding_dim": 8, "hidden_size": 8, "num_layers": 1}
FAST: dict[str, Any] = {"model_config": SIZES, "probe": "off", "device": "cpu", "batch_size": 4,
                        "num_threads": 1}  # fmt: skip
WORDS = (("good", "fun"), ("bad", "dull"), ("great", "nice"), ("poor", "long"))
TEXTS = [f"{n} was {one}\nand {two}" for n in ("Act one", "It", "The end") for one, two in WORDS]
LABELS = ["pos", "neg"] * 6


def test_a_backward_tokenizer_reverses_tokens_and_lines() -> None:
    inner = WordTokenizer.fit(["a dog runs", "it eats"])
    tokens = BackwardTokenizer(inner)
    assert tokens.encode("a dog runs") == inner.encode("a dog runs")[::-1]
    assert tokens.parts_of("a dog\nruns") == ["runs", "a dog"]
    assert tokens.decode(tokens.encode("a dog runs")) == "a dog runs"
    again = tokenizer_from_json(json.loads(json.dumps(tokens.as_json())))
    assert again.backward
    assert again.tokenize("a dog") == ["dog", "a"]


@pytest.mark.parametrize("truncation", ["head", "head_tail"])
def test_the_same_part_of_a_long_text_is_kept_in_both_directions(truncation: str) -> None:
    inner = WordTokenizer.fit(["a b c d e"])
    rows: list[list[int]] = []
    for tokenizer in (inner, BackwardTokenizer(inner)):
        reader = TextPreprocessor(tokenizer=tokenizer, max_length=3, truncation=truncation)
        rows.append(reader.encode(["a b c d e"]).inputs["tokens"][0].tolist())
    kept = ["a", "b", "c"] if truncation == "head" else ["a", "b", "e"]
    assert inner.ids_to_tokens(rows[0][1:-1]) == kept
    assert inner.ids_to_tokens(rows[1][1:-1]) == kept[::-1]


def language_model(folder: Path, *, backward: bool) -> Path:
    options = LanguageOptions(tokenizer="word", language="en", backward=backward)
    data = LanguageModelData.from_texts(TEXTS, valid=2, options=options)
    learner = Learner(data, choices=FAST, seed=0, quiet=True)
    learner.fit(1)
    return learner.export(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    found = []
    for backward in (False, True):
        name = "backward" if backward else "forward"
        options = TextOptions(
            language_model=language_model(folder / f"lm_{name}", backward=backward)
        )
        data = TextData.from_arrays(TEXTS, LABELS, valid=4, options=options)
        learner = Learner(data, choices={"probe": "off", "device": "cpu"}, seed=0, quiet=True)
        learner.fit(2)
        found.append(learner.export(folder / name))
    return found[0], found[1]


def test_the_stream_of_a_backward_model_is_that_of_each_document_reversed() -> None:
    found = {}
    for backward in (False, True):
        options = LanguageOptions(tokenizer="word", language="en", backward=backward)
        data = LanguageModelData.from_texts(TEXTS, valid=2, options=options)
        learner = Learner(data, choices=FAST, quiet=True)
        stream: Any = learner.built.dataset("valid").stream  # type: ignore[attr-defined]
        found[backward] = stream
        assert learner.plan.values["backward"] is backward
    forward, back = found[False], found[True]
    assert torch.equal(forward.starts, back.starts)
    for begin, end in zip(forward.starts[:-1], forward.starts[1:], strict=True):
        # The end token of the last line is after the last token in both directions.
        assert (
            forward.tokens[begin : end - 1].tolist() == back.tokens[begin : end - 1].tolist()[::-1]
        )
    assert sorted(forward.line_bytes.tolist()) == sorted(back.line_bytes.tolist())
    assert forward.line_bytes.tolist() != back.line_bytes.tolist()


def test_a_classifier_reads_in_the_direction_of_its_language_model(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    forward, backward = (Predictor.load(each) for each in models)
    rows = [each.preprocessor.encode(TEXTS[:1]).inputs["tokens"][0] for each in (forward, backward)]
    assert rows[0].tolist() == rows[1].tolist()[::-1]
    source = models[1].parent / "lm_backward"
    options = TextOptions(language_model=source, tokenizer="word")
    data = TextData.from_arrays(TEXTS, LABELS, valid=4, options=options)
    learner = Learner(data, choices={"probe": "off"}, quiet=True)
    assert learner.built.preprocessor.tokenizer.backward  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="reads texts backwards, so it does not continue"):
        Predictor.load(source).predict(["It was"])


def test_combined_exports_predict_the_mean(models: tuple[Path, Path], tmp_path: Path) -> None:
    both = Predictor.load(combine(models, tmp_path / "both"))
    single = [Predictor.load(each).predict(TEXTS) for each in models]
    for at, found in enumerate(both.predict(TEXTS)):
        mean = sum(each[at].probabilities["pos"] for each in single) / 2
        assert found.probabilities["pos"] == pytest.approx(mean, abs=1e-6)
    file = tmp_path / "reviews.jsonl"
    rows = zip(TEXTS, LABELS, strict=True)
    file.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in rows))
    words = ["evaluate", str(tmp_path / "both"), str(file), "--json"]
    found = CliRunner().invoke(build_app(), words)
    assert found.exit_code == 0, found.output
    assert '"accuracy"' in found.output


def test_exports_that_cannot_be_combined_are_refused(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="at least two folders"):
        combine([models[0]], tmp_path / "one")
    x = torch.randn(40, 3)
    other = Learner(TensorData.from_tensors(x, (x[:, 0] > 0).long()), quiet=True)
    folder = other.export(tmp_path / "tensors")
    with pytest.raises(ArgumentError, match="export of the domain 'text', but"):
        combine([models[0], folder], tmp_path / "two")
    data = TextData.from_arrays(TEXTS, ["a", "b"] * 6, valid=4)
    named = Learner(data, quiet=True).export(tmp_path / "named")
    with pytest.raises(ArgumentError, match="predict different outputs"):
        combine([models[0], named], tmp_path / "three")
    both = combine(models, tmp_path / "both")
    with pytest.raises(ArtefactError, match="is an ensemble of 2 models"):
        combine([both, models[0]], tmp_path / "four")
