"""Encoding of texts for prediction, and the texts that are refused."""

from __future__ import annotations

import json

import pytest

from flambeau.errors import InputError
from flambeau_text import WordTokenizer
from flambeau_text.translation.language_guard import LanguageGuard
from flambeau_text.translation.preprocess import TranslationPreprocessor

SOURCES = ["the dog runs over the grass", "a man with a ball", "two men and the dog"] * 4
TARGETS = ["der hund läuft über das gras", "ein mann mit einem ball", "zwei männer und hund"] * 4


@pytest.fixture
def preprocessor() -> TranslationPreprocessor:
    return TranslationPreprocessor(
        source=WordTokenizer.fit(SOURCES, language="en"),
        target=WordTokenizer.fit(TARGETS, language="de"),
        max_tokens=20,
        language_guard=LanguageGuard.fit(SOURCES, TARGETS, "en", "de"),
    )


def test_ids_end_with_the_end_token(preprocessor: TranslationPreprocessor) -> None:
    batch = preprocessor.encode(["the dog", "a man runs"])
    the, dog = preprocessor.source.encode("the dog")
    assert batch.inputs["source"][0].tolist() == [the, dog, 3, 1]
    assert batch.masks["source"].tolist() == [[True, True, True, False], [True] * 4]
    assert not batch.targets


def test_json_round_trip(preprocessor: TranslationPreprocessor) -> None:
    arguments = json.loads(json.dumps(preprocessor.arguments()))
    again = TranslationPreprocessor(**arguments)
    assert again.arguments() == preprocessor.arguments()
    assert again.target.decode(preprocessor.target.encode("der hund")) == "der hund"
    shared = TranslationPreprocessor(source=preprocessor.source)
    assert shared.target is shared.source
    assert shared.arguments()["target"] is None
    assert TranslationPreprocessor(**shared.arguments()).encode(["a man"]) is not None


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (3, r"Item 1: 3 is of type int. Give a string"),
        ("  \t", r"Item 1: the text is empty"),
        ("собака бежит по траве", r"is written in Cyrillic: 18 of its 18 letters.*\(en\)"),
        (
            "der hund und ein mann",
            r"reads like the target side \(de\): it has the target words der, hund",
        ),
        ("dog " * 10_000, r"Item 1: .* has 10,000 tokens, more than the maximum of 20.*Split it"),
    ],
)
def test_texts_that_are_refused(
    preprocessor: TranslationPreprocessor, item: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        preprocessor.encode(["the dog", item])


def test_the_language_check_can_be_disabled(preprocessor: TranslationPreprocessor) -> None:
    preprocessor.language_guard = None
    assert len(preprocessor.encode(["der hund und ein mann"])) == 1


def test_names_unknown_words_and_numbers_pass(
    preprocessor: TranslationPreprocessor,
) -> None:
    assert len(preprocessor.encode(["Zidane", "12 34", "a zebra in Timbuktu", "ball!"])) == 4


def test_a_third_language_is_recognised() -> None:
    guard = LanguageGuard.fit(SOURCES * 200, TARGETS * 200)
    text = "un homme avec une balle court dans le jardin vert de la ville"
    assert guard.problem(text) is None  # no train source has ten words
    longer = [f"{source} and {source}" for source in SOURCES * 200]
    problem = LanguageGuard.fit(longer, TARGETS).problem(text)
    assert problem is not None
    assert "13 words, but none of the frequent words" in problem


def test_words_of_both_sides_are_not_another_language() -> None:
    """As in copying tasks, names and numbers."""
    rows = [" ".join(f"w{(7 * n + k) % 50}" for k in range(12)) for n in range(600)]
    guard = LanguageGuard.fit(rows, rows)
    assert all(guard.problem(row) is None for row in rows)
