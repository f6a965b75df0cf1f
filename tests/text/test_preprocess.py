"""From a text to numbers when predicting: what is refused, and why."""

from __future__ import annotations

import json

import pytest

from flambeau.errors import InputError
from flambeau_text import WordTokenizer
from flambeau_text.translation.preprocess import TranslationPreprocessor
from flambeau_text.translation.seen import SeenText

SOURCES = ["the dog runs over the grass", "a man with a ball", "two men and the dog"] * 4
TARGETS = ["der hund läuft über das gras", "ein mann mit einem ball", "zwei männer und hund"] * 4


@pytest.fixture
def prepare() -> TranslationPreprocessor:
    return TranslationPreprocessor(
        source=WordTokenizer.fit(SOURCES, language="en"),
        target=WordTokenizer.fit(TARGETS, language="de"),
        max_tokens=20,
        seen=SeenText.of(SOURCES, TARGETS, "en", "de"),
    )


def test_numbers_with_an_end(prepare: TranslationPreprocessor) -> None:
    batch = prepare.encode(["the dog", "a man runs"])
    the, dog = prepare.source.encode("the dog")
    assert batch.inputs["source"][0].tolist() == [the, dog, 3, 1]
    assert batch.masks["source"].tolist() == [[True, True, True, False], [True] * 4]
    assert not batch.targets


def test_json_and_back(prepare: TranslationPreprocessor) -> None:
    arguments = json.loads(json.dumps(prepare.arguments()))
    again = TranslationPreprocessor(**arguments)
    assert again.arguments() == prepare.arguments()
    assert again.target.decode(prepare.target.encode("der hund")) == "der hund"
    shared = TranslationPreprocessor(source=prepare.source)
    assert shared.target is shared.source
    assert shared.arguments()["target"] is None
    assert TranslationPreprocessor(**shared.arguments()).encode(["a man"]) is not None


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (3, r"Item 1: 3 is a int; give a text"),
        ("  \t", r"Item 1: the text is empty, so there is nothing"),
        ("собака бежит по траве", r"is written in Cyrillic: 18 of its 18 letters.*\(en\)"),
        ("der hund und ein mann", r"reads like the target side \(de\): it has its words der, hund"),
        ("dog " * 10_000, r"Item 1: .* has 10,000 tokens, more than 20.*Cut it"),
    ],
)
def test_what_cannot_be_translated(
    prepare: TranslationPreprocessor, item: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare.encode(["the dog", item])


def test_the_check_of_languages_can_be_put_off(prepare: TranslationPreprocessor) -> None:
    prepare.seen = None
    assert len(prepare.encode(["der hund und ein mann"])) == 1


def test_names_unknown_words_and_figures_are_no_other_language(
    prepare: TranslationPreprocessor,
) -> None:
    assert len(prepare.encode(["Zidane", "12 34", "a zebra in Timbuktu", "ball!"])) == 4


def test_a_third_language_is_told_where_train_was_regular() -> None:
    seen = SeenText.of(SOURCES * 200, TARGETS * 200)
    text = "un homme avec une balle court dans le jardin vert de la ville"
    assert seen.fault(text) is None  # no train source has ten words, so nothing is known
    longer = [f"{source} and {source}" for source in SOURCES * 200]
    fault = SeenText.of(longer, TARGETS).fault(text)
    assert fault is not None
    assert "13 words and none of the frequent ones" in fault


def test_words_that_both_sides_have_are_the_sources_own() -> None:
    """Copying, names, numbers: nothing there is of another language."""
    rows = [" ".join(f"w{(7 * n + k) % 50}" for k in range(12)) for n in range(600)]
    seen = SeenText.of(rows, rows)
    assert all(seen.fault(row) is None for row in rows)
