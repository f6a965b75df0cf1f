"""Scores against sacrebleu's command and against stored values."""

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
def test_value_and_signature_equal_the_commands(
    name: str, words: list[str], tmp_path: Path
) -> None:
    for path, lines in (("hyp", HYPOTHESES), ("ref", REFERENCES)):
        (tmp_path / path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", *words, "--width", "10"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    printed = json.loads(result.stdout)
    found = corpus_score(HYPOTHESES, REFERENCES, name)
    # The command rounds to the given width.
    assert found.value == pytest.approx(printed["score"], abs=1e-9)
    assert found.signature.split("|version")[0] == printed["signature"].split("|version")[0]


def test_stored_values() -> None:
    """13a tokenization splits punctuation, and "bleu" is case-sensitive."""
    scores = corpus_scores(["a dog ( runs )"], ["A dog (runs)"])
    assert scores["bleu_lower"].value == pytest.approx(100.0)
    assert scores["bleu"].value == pytest.approx(66.87403, abs=1e-4)
    assert "case:lc" in scores["bleu_lower"].signature
    assert "tok:13a" in scores["bleu"].signature


def test_an_empty_translation_lowers_the_score() -> None:
    assert corpus_score(["a b c d", ""], ["a b c d", "e f g h"]).value < 60.0


def test_sentences_can_be_ranked() -> None:
    close, far = sentence_bleu("the dog runs fast", "the dog runs"), sentence_bleu("cat", "the dog")
    assert close > far


def test_invalid_arguments_raise() -> None:
    with pytest.raises(InputError, match="1 translations for 2 references"):
        corpus_score(["a"], ["a", "b"])
    with pytest.raises(InputError, match="0 translations"):
        corpus_score([], [])
    with pytest.raises(ArgumentError, match=r"Unknown score 'blue'.*'bleu'"):
        corpus_score(["a"], ["a"], "blue")


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ("a b", ["a", "b"], "The translations are one text"),
        (["a"], "a", "The references are one text"),
        (["a", None], ["a", "b"], "Entry 1 of the translations is None"),
        (["a"], [["a", "b"]], "Entry 0 of the references is .* several references"),
    ],
)
def test_other_values_than_texts_are_refused(
    hypotheses: object, references: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        corpus_score(hypotheses, references)  # type: ignore[arg-type]


def test_equal_texts_score_exactly_100() -> None:
    text = ["The dog bit the man."]  # sacrebleu 2.6: 100.00000000000004
    assert corpus_score(text, text).value == 100.0
