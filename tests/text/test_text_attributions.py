"""``learner.explain`` for texts: tokens without special tokens and padding."""

from __future__ import annotations

import pytest
import torch

from flambeau import Learner, TrainingOptions
from flambeau_text import TextData, token_attributions
from flambeau_text.tokenization.tokenizer import END_ID


def make(model: str) -> Learner:
    words = ["good", "bad", "film", "plot", "the", "a", "very"]
    texts = [
        f"{words[i % 2]} {words[2 + i % 2]} {words[4 + i % 3]} {words[(i // 2) % 7]}"
        for i in range(120)
    ]
    data = TextData.from_arrays(texts, [["yes", "no"][i % 2] for i in range(120)], valid=0.2)
    torch.manual_seed(0)
    return Learner(
        data,
        model,
        choices={"probe": "off"},
        training=TrainingOptions(doctor=False),
        quiet=True,
    )


@pytest.mark.parametrize("model", ["bag", "transformer"])
def test_the_parts_are_the_words_of_the_text(model: str) -> None:
    learner = make(model)
    learner.fit(2)
    text = "a good\nfilm"  # the end of a line is a special token, too
    found = learner.explain(text)
    assert found.attributions is not None
    every = token_attributions(learner.predictor(), text)
    ids = learner.built.preprocessor.encode([text]).inputs["tokens"][0].tolist()
    kept = [each != END_ID for each in ids]
    assert 3 == sum(kept) < len(ids)
    assert found.attributions.parts == tuple(
        token for token, is_kept in zip(every.tokens, kept, strict=True) if is_kept
    )
    assert found.attributions.values == pytest.approx(
        [value for value, is_kept in zip(every.values, kept, strict=True) if is_kept], rel=1e-4
    )
    assert found.attributions.method == "gradient × input"
    assert len(found.neighbours) == 5
    assert found.neighbours[0].caption
