"""Scores against sacrebleu's own command, and figures that were stored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flambeau.errors import ArgumentError, InputError
from flambeau_text.translation.scores import corpus_score, corpus_scores, sentence_bleu

HYPOTHESES = ["Der Hund läuft .", "", "zwei männer, ein Ball!", "Es ist 25.3 Meter lang."]
REFERENCES = [
    "Der Hund läuft.",
    "Ein leerer Satz.",
    "Zwei Männer, ein Ball!",
    "Es ist 25.3 Meter lang.",
]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bleu", ["-m", "bleu"]),
        ("bleu_lower", ["-m", "bleu", "-lc"]),
        ("chrf", ["-m", "chrf"]),
        ("ter", ["-m", "ter"]),
    ],
)
def test_value_and_signature_are_those_of_the_command(
    name: str, words: list[str], tmp_path: Path
) -> None:
    for path, lines in (("hyp", HYPOTHESES), ("ref", REFERENCES)):
        (tmp_path / path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", *words, "--width", "10"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    told = json.loads(answer.stdout)
    found = corpus_score(HYPOTHESES, REFERENCES, name)
    # The command rounds to the width that it is given.
    assert found.value == pytest.approx(told["score"], abs=1e-9)
    assert found.signature.split("|version")[0] == told["signature"].split("|version")[0]


def test_stored_figures() -> None:
    """Punctuation that is cut off scores as 13a cuts it; case counts where it is not folded."""
    scores = corpus_scores(["a dog ( runs )"], ["A dog (runs)"])
    assert scores["bleu_lower"].value == pytest.approx(100.0)
    assert scores["bleu"].value == pytest.approx(66.87403, abs=1e-4)
    assert "case:lc" in scores["bleu_lower"].signature
    assert "tok:13a" in scores["bleu"].signature


def test_an_empty_translation_counts() -> None:
    assert corpus_score(["a b c d", ""], ["a b c d", "e f g h"]).value < 60.0


def test_sentences_can_be_ordered() -> None:
    close, far = sentence_bleu("the dog runs fast", "the dog runs"), sentence_bleu("cat", "the dog")
    assert close > far


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="1 translations for 2 references"):
        corpus_score(["a"], ["a", "b"])
    with pytest.raises(InputError, match="0 translations"):
        corpus_score([], [])
    with pytest.raises(ArgumentError, match=r"no score 'blue'.*'bleu'"):
        corpus_score(["a"], ["a"], "blue")
