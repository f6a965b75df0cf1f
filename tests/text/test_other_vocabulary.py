"""Weights are loaded only where their token ids have the meaning with which they were trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flambeau import Learner
from flambeau.errors import ArtefactError
from flambeau_text import TranslationData, TranslationOptions

CHOICES = {
    "device": "cpu",
    "probe": "off",
    "precision": "fp32",
    "model_config": {"embedding_dim": 8, "hidden_size": 8},
}


def learner(letter: str, folder: Path | None = None, **options: object) -> Learner:
    pairs = [(f"{letter}{n} a{n % 5}", f"{letter}{n} x{n % 5}") for n in range(20)]
    data = TranslationData.from_pairs(pairs, valid=pairs[:4], options=TranslationOptions(**options))
    return Learner(data, choices=CHOICES, folder=folder, quiet=True)


@pytest.mark.parametrize("saved", ["export", "weights.safetensors"])
def test_weights_of_another_vocabulary_are_refused(tmp_path: Path, saved: str) -> None:
    one = learner("b")
    path = one.export(tmp_path / saved) if saved == "export" else one.save(tmp_path / saved)
    other = learner("c")
    # The shapes are equal: only the vocabularies tell the models apart.
    shapes = [[each.shape for each in made.model.parameters()] for made in (one, other)]
    assert shapes[0] == shapes[1]
    with pytest.raises(ArtefactError, match=r"another vocabulary .*Learner\(data, start=EXPORT\)"):
        other.load(path)
    same = learner("b")
    same.load(path)
    for mine, theirs in zip(same.model.parameters(), one.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("tokenizer", ["bpe", "character"])
def test_other_tokenizers_have_vocabularies_too(tmp_path: Path, tokenizer: str) -> None:
    path = learner("b", tokenizer=tokenizer).export(tmp_path / "export")
    with pytest.raises(ArtefactError, match="another vocabulary"):
        learner("c", tokenizer=tokenizer).load(path)


def test_case_is_part_of_the_vocabulary(tmp_path: Path) -> None:
    path = learner("b").save(tmp_path / "weights")
    with pytest.raises(ArtefactError, match="another vocabulary"):
        learner("b", lowercase=True).load(path)


@pytest.mark.parametrize("method", ["load", "resume"])
def test_a_checkpoint_of_another_vocabulary_is_refused(tmp_path: Path, method: str) -> None:
    folder = tmp_path / "run"
    learner("b", folder=folder).fit(1, lr=1e-3)
    with pytest.raises(ArtefactError, match="another vocabulary"):
        getattr(learner("c"), method)(folder)
    getattr(learner("b"), method)(folder)
