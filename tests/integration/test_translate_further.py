"""A translation model that is exported and trained further on new pairs."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from flambeau import Learner, Predictor
from flambeau.errors import ArtefactError, PlanError
from flambeau_text import TranslationData

CHOICES: dict[str, Any] = {
    "architecture": "rnn",
    "model_config": {"embedding_dim": 48, "hidden_size": 48, "decoder_layers": 1},
    "device": "cpu",
    "precision": "fp32",
    "probe": "off",
    "lr": 4e-3,
    "batch_size": 32,
    "decoding": {"kind": "greedy"},
}


def short_pairs(folder: Path) -> list[tuple[str, str]]:
    sides = [
        gzip.decompress((folder / f"train.{language}.gz").read_bytes()).decode().splitlines()
        for language in ("en", "de")
    ]
    return [pair for pair in zip(*sides, strict=True) if len(pair[0].split()) <= 9]


@pytest.mark.slow
@pytest.mark.realdata
def test_an_exported_model_improves_on_new_pairs(realdata: Path, tmp_path: Path) -> None:
    pairs = short_pairs(realdata / "multi30k")
    old, new = pairs[:1_050], pairs[1_050:1_600]
    vocabulary = {"tokenizer": "bpe", "vocab_size": 1_000}
    first = Learner(
        TranslationData.from_pairs(old, valid=50),
        choices={**CHOICES, **vocabulary, "epochs": 8},
        quiet=True,
    )
    first.fit()
    first.export(tmp_path / "export")

    data = TranslationData.from_pairs(new, valid=50)
    assert len(data.raw("train")) == 500
    choices = {"epochs": 8, "decoding": CHOICES["decoding"]}
    second = Learner(data, start=tmp_path / "export", choices=choices, quiet=True)
    assert second.built.preprocessor.arguments() == first.built.preprocessor.arguments()
    sentence = data.raw("valid")[0]
    assert (
        second.predict(sentence).text == Predictor.load(tmp_path / "export").predict(sentence).text
    )
    before = second.evaluate()
    second.fit(lr=3e-3)
    after = second.evaluate()
    assert after["loss"] < before["loss"] - 0.1
    # The same steps from initial weights do not get as far: the export's weights are what helps.
    alone = Learner(data, choices={**CHOICES, **vocabulary, "epochs": 8, "lr": 3e-3}, quiet=True)
    alone.fit()
    assert alone.evaluate()["perplexity"] > after["perplexity"]

    with pytest.raises(PlanError, match="vocab_size is 800, but the export"):
        Learner(data, start=tmp_path / "export", choices={"vocab_size": 800}, quiet=True)
    other = Learner(data, choices={**CHOICES, "tokenizer": "bpe", "vocab_size": 900}, quiet=True)
    with pytest.raises(ArtefactError, match=r"belong to another model|does not fit"):
        other.load(tmp_path / "export")
    plan = second.plan
    other.export(tmp_path / "export")
    with pytest.raises(ArtefactError, match=r"The preprocessor in .* the export was replaced"):
        _ = Learner(data, plan=plan, quiet=True).model
