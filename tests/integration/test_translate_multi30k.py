"""The Multi30k example: statistics of the data and choices of the plan."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.mark.realdata
def test_statistics_and_plan(realdata: Path, example: Callable[[str], ModuleType]) -> None:
    module = example("translate_multi30k")
    data = module.load(realdata / "multi30k")
    sizes = [len(data.split.part(part)) for part in ("train", "valid", "test")]
    assert sizes == [29_000, 1_014, 1_000]
    assert not data.skipped
    assert "3 train pairs repeat another train pair" in data.report()
    plan = module.learner(data).plan
    assert plan["tokenizer"].value == "bpe"
    assert plan["vocab_size"].value == 8_000
    assert plan["shared_vocab"].value is True
    assert plan["batch_size"].value == 128
    for side, language in (("source", "en"), ("target", "de")):
        text = gzip.decompress((realdata / f"multi30k/train.{language}.gz").read_bytes()).decode()
        assert data.facts()[f"{side}_words"] == len(text.split())
        assert data.facts()[f"{side}_distinct_words"] == len(set(text.lower().split()))
