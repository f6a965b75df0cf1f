"""The word tokenizer restores the spaces of a text."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from flambeau_text import WordTokenizer
from flambeau_text.text_lines import read_lines
from flambeau_text.tokenization.words import JOINER

TEXTS = {
    "fr": ["L'homme qu'il a vu n'est pas là aujourd'hui.", "« Oui ! » dit-il ; puis : rien…"],
    "en": ["A well-known dog can't (really) run 3.5 km/h!", 'He said: "No, I won\'t." - and left'],
    "de": ["„Ja“, sagte er – z. B. gestern.", "Das 2,5-fache (oder 10%) von 5€/kg."],
    "es": ["¿Qué? ¡No me digas!", "Cuesta $5 y #3 @casa."],
    "zh": ["我喜欢音乐,你呢?", "用 Python 写代码。"],
    "xx": ["a.b,c d/e::f  g", "''' \"\" ((a)) [b]{c} -- _x_ ---", f"a {JOINER} b{JOINER}"],
}


@pytest.mark.parametrize("language", TEXTS)
def test_decoding_restores_the_text(language: str) -> None:
    texts = TEXTS[language]
    tokenizer = WordTokenizer.fit(texts, language=language)
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.normalize(text)
        assert JOINER not in tokenizer.decode(tokenizer.encode(text))


def test_decoding_restores_random_texts_and_words_keep_one_form() -> None:
    draws = random.Random(0)
    parts = ["dog", "'", '"', "-", "(", ")", ".", ",", " ", "  ", "l'", "3", "„", "“", "…", "can't"]
    texts = ["".join(draws.choices(parts, k=12)) for _ in range(300)]
    tokenizer = WordTokenizer.fit(texts, language="en")
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.normalize(text)
    plain = WordTokenizer.fit(["A dog (a big dog), it's a dog!"], language="en")
    assert plain.tokenize("A dog, it's (big).") == [
        "A", "dog", f"{JOINER},", "it", f"{JOINER}'s", f"({JOINER}", "big", f"{JOINER})",
        f"{JOINER}.",
    ]  # fmt: skip
    assert plain.vocab.get_stoi()["dog"] == 4  # one token for all its places


def test_unknown_words_keep_the_spaces_of_their_neighbours() -> None:
    tokenizer = WordTokenizer.fit(["a dog (runs)."], language="en")
    assert tokenizer.decode(tokenizer.encode("a cat (runs).")) == "a <unk> (runs)."


def test_decoding_restores_multi30k(realdata: Path) -> None:
    for language in ("en", "de"):
        texts = read_lines(realdata / "multi30k" / f"val.{language}.gz")
        tokenizer = WordTokenizer.fit(texts, language=language)
        for text in texts:
            assert tokenizer.decode(tokenizer.encode(text)) == tokenizer.normalize(text)
