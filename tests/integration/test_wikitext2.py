"""The example on WikiText-2: the words are those of the files, and the n-gram model's score."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from flambeau_text.text_lines import lines_of


def test_words_and_ngram_model_are_the_published_ones(
    realdata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    module = import_module("wikitext2")  # it imports modules beside it
    data = module.read(realdata / "wikitext2")
    # 33,277 words and one end token per line.
    assert data.facts()["distinct_words"] == 33_277
    assert sum(len(line.split()) + 1 for text in data.raw("train") for line in lines_of(text)) == (
        2_088_628
    )
    # Computed independently for the same stream: 232.5 for n-grams of 5.
    assert module.ngram_perplexity(data, 5, "valid") == pytest.approx(232.5, abs=1.0)
