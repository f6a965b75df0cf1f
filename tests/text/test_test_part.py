"""A test part never gets smaller, whatever its pairs are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.metrics.bleu import BLEU
from typer.testing import CliRunner

from flambeau import Learner
from flambeau.cli.app import build_app
from flambeau.data.split import Split
from flambeau.errors import InputError
from flambeau_text import TranslationData, TranslationOptions

TRAIN = [(f"a b {n}", f"c d {n}") for n in range(20)]
# Blank sides, a source over the limit of words, and sides of very different lengths.
TEST = [("a b 3", "c d 3"), ("  ", "leer"), ("a " * 200, "c"), ("a b", ""), ("a", "c " * 30)]
CHOICES: dict[str, Any] = {
    "device": "cpu", "probe": "off", "precision": "fp32", "decoding": {"kind": "greedy"},
    "model_config": {"embedding_dim": 8, "hidden_size": 8},
}  # fmt: skip


def test_a_given_test_part_is_kept_whole() -> None:
    data = TranslationData.from_pairs(TRAIN, test=TEST)
    assert data.references("test") == [target for _, target in TEST]
    assert data.skipped == {}
    frame = {
        "source": [source for source, _ in TRAIN + TEST],
        "target": [target for _, target in TRAIN + TEST],
        "part": ["train"] * 18 + ["valid"] * 2 + ["test"] * 5,
    }
    assert len(TranslationData.from_df(frame, split="part").raw("test")) == 5
    split = Split.from_indices(range(18), [18, 19], range(20, 25))
    assert len(TranslationData.from_pairs(TRAIN + TEST, split=split).raw("test")) == 5
    # Train and valid are still filtered, and an error can be asked for.
    assert TranslationData.from_pairs(TRAIN + TEST, valid=TEST).skipped["empty side"] == 4
    with pytest.raises(InputError, match="4 of 5 pairs are unusable"):
        TranslationData.from_pairs(TRAIN, test=TEST, options=TranslationOptions(unusable="raise"))
    with pytest.raises(InputError, match="test pair 0: the source has the unpaired surrogate"):
        TranslationData.from_pairs(TRAIN, test=[("\ud800", "a")])


def test_every_test_pair_is_scored_and_blank_ones_have_blank_translations(tmp_path: Path) -> None:
    learner = Learner(TranslationData.from_pairs(TRAIN, test=TEST), choices=CHOICES, quiet=True)
    learner.fit(1)
    found = learner.interpret("test")
    texts = found.predictions.summary.entries("predicted_text")
    assert len(texts) == len(TEST)
    assert texts[1] == ""
    expected = BLEU().corpus_score(texts, [[target for _, target in TEST]]).score
    assert found.predictions.scores["bleu"] == pytest.approx(expected, abs=1e-9)
    assert learner.evaluate("test")["bleu"] == pytest.approx(expected, abs=1e-9)
    # The same pairs as files on the command line.
    export = learner.export(tmp_path / "model")
    for side, name in enumerate(("t.en", "t.de")):
        (tmp_path / name).write_text("".join(f"{pair[side]}\n" for pair in TEST), encoding="utf-8")
    words = ["evaluate", str(export), "--source", str(tmp_path / "t.en")]
    words += ["--target", str(tmp_path / "t.de"), "--part", "all", "--json"]
    result = CliRunner().invoke(build_app(), words)
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)
    assert scores["samples"] == len(TEST)
    assert scores["bleu"] == pytest.approx(expected, abs=1e-9)
    one = tmp_path / "one.csv"
    one.write_text("source,target\n" + ",".join(TEST[0]) + "\n", encoding="utf-8")
    result = CliRunner().invoke(build_app(), ["evaluate", str(export), str(one)])
    assert result.exit_code == 0, result.exception
    assert result.stdout.startswith("1 samples (all)")
