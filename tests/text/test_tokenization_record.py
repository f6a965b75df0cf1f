"""An export knows the versions that tokenized its train texts."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from flambeau import Learner, Predictor
from flambeau.errors import FlambeauWarning
from flambeau_text import LanguageModelData, TagData, TextData, TranslationData, TranslationOptions
from flambeau_text.tokenization import tokenization_record

CHOICES: dict[str, Any] = {
    "device": "cpu", "probe": "off", "precision": "fp32",
    "model_config": {"embedding_dim": 8, "hidden_size": 8},
}  # fmt: skip


@pytest.mark.parametrize("tokenizer", ["word", "bpe", "character"])
def test_other_tokens_after_an_update_are_a_warning(
    tmp_path: Path, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(f"a dog {n}", f"ein Hund {n}") for n in range(12)]
    data = TranslationData.from_pairs(pairs, options=TranslationOptions(tokenizer=tokenizer))
    learner = Learner(data, choices=CHOICES, quiet=True)
    export = learner.export(tmp_path / "export")
    text = (export / "flambeau.json").read_text(encoding="utf-8")
    recorded = json.loads(text)["preprocessor"]["arguments"]["tokenization"]
    assert recorded["versions"]["tokenizers"] == version("tokenizers")
    first = Predictor.load(export)  # no warning
    assert first.preprocessor.arguments()["tokenization"] == recorded
    # Another version number alone changes nothing; other tokens are named with both versions.
    monkeypatch.setattr(tokenization_record, "version", lambda name: "9.9")
    Predictor.load(export)
    Learner(data, choices=CHOICES, quiet=True).load(export)
    monkeypatch.setattr(tokenization_record, "_SENTENCE", "other tokens")
    with pytest.warns(FlambeauWarning, match=r"other tokens than.*\(now 9\.9\).*digest"):
        Predictor.load(export)


def _classifier(options: Any = None) -> Any:
    texts = [f"a dog {n}" for n in range(12)]
    return TextData.from_arrays(texts, [0, 1] * 6, valid=4, **(options or {}))


def _tagger(options: Any = None) -> Any:
    return TagData.from_arrays([["a", "dog"]] * 12, [["X", "Y"]] * 12, valid=4, **(options or {}))


def _language(options: Any = None) -> Any:
    texts = [f"a dog number {n} runs and runs" for n in range(12)]
    return LanguageModelData.from_texts(texts, valid=4, **(options or {}))


@pytest.mark.parametrize("read", [_classifier, _tagger, _language])
def test_exports_of_every_task_notice_other_tokens(
    read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = {"device": "cpu", "probe": "off", "precision": "fp32"}
    learner = Learner(read(), choices=choices, quiet=True)
    export = learner.export(tmp_path / "export")
    record = Predictor.load(export).preprocessor.arguments()["tokenization"]  # no warning
    assert record["versions"]["tokenizers"] == version("tokenizers")
    monkeypatch.setattr(tokenization_record, "_SENTENCE", "other tokens")
    with pytest.warns(FlambeauWarning, match="other tokens than"):
        Predictor.load(export)
    with pytest.warns(FlambeauWarning, match="other tokens than"):
        Learner(read(), start=export, choices=choices, quiet=True)
