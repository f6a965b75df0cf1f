"""Tokenizers: encoding, unknown tokens and decoding."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from flambeau.errors import ArgumentError, ArtefactError, InputError
from flambeau_text.tokenization import (
    CharacterTokenizer,
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
    tokenizer_from_json,
)
from flambeau_text.vocab import SPECIALS

TEXTS = [
    "A dog runs (fast), doesn't it?",
    "The dog's ball is red; the ball isn't blue.",
    "Two dogs run over the grass, 25 metres away!",
] * 4


MAKE: dict[str, Callable[[], Tokenizer]] = {
    "character": lambda: CharacterTokenizer.fit(TEXTS),
    "word": lambda: WordTokenizer.fit(TEXTS, language="en"),
    "bpe": lambda: SubwordTokenizer.train(TEXTS, vocab_size=120),
    "unigram": lambda: SubwordTokenizer.train(TEXTS, kind="unigram", vocab_size=60),
}


@pytest.fixture(scope="module", params=MAKE)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Each kind of tokenizer."""
    return MAKE[request.param]()


def test_decoding_restores_the_text(tokenizer: Tokenizer) -> None:
    for text, ids in zip(TEXTS, tokenizer.encode_batch(TEXTS), strict=True):
        assert tokenizer.decode(ids) == text
        assert len(tokenizer.tokenize(text)) == len(ids)
        assert all(4 <= i < len(tokenizer) for i in ids)


def test_json_round_trip(tokenizer: Tokenizer) -> None:
    again = tokenizer_from_json(json.loads(json.dumps(tokenizer.as_json())))
    assert type(again) is type(tokenizer)
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert len(again) == len(tokenizer)


def test_text_is_never_encoded_as_a_special_token(tokenizer: Tokenizer) -> None:
    for special in SPECIALS:
        for text in (special, f"A dog {special} runs"):
            assert not {1, 2, 3} & set(tokenizer.encode(text))


def test_special_tokens_have_ids_0_to_3(tokenizer: Tokenizer) -> None:
    assert tuple(tokenizer.ids_to_tokens(range(4))) == SPECIALS
    dog = tokenizer.encode("A dog")
    assert tokenizer.decode([2, *dog, 3, *dog, 1, 1]) == "A dog"


def test_any_white_space_separates_words() -> None:
    words = WordTokenizer.fit(["a  dog\truns\u00a0fast"], language="en")
    assert words.tokenize("a  dog\truns\u00a0fast") == ["a", "dog", "runs", "fast"]
    pieces = SubwordTokenizer.train(TEXTS, vocab_size=120)
    assert pieces.decode(pieces.encode("A  dog")) in ("A dog", "A  dog")


def test_unknown_words_characters_and_pieces() -> None:
    words = WordTokenizer.fit(TEXTS, language="en")
    assert words.encode("A zebra") == [words.vocab["A"], 0]
    assert words.tokenize("A zebra") == ["A", "zebra"]
    assert CharacterTokenizer.fit(["ab"]).decode([0]) == "\ufffd"
    pieces = SubwordTokenizer.train(TEXTS, vocab_size=120)
    assert 0 in pieces.encode("A щ")
    assert "щ" in "".join(pieces.tokenize("A щ"))


def test_rare_words_are_unknown_if_requested() -> None:
    words = WordTokenizer.fit(["a b b c c c"], min_freq=2)
    assert words.vocab.get_itos()[4:] == ["c", "b"]
    words = WordTokenizer.fit(["a b b c c c"], max_tokens=5)
    assert words.vocab.get_itos()[4:] == ["c"]


def test_lower_case() -> None:
    for made in (
        WordTokenizer.fit(["A Dog"], lowercase=True),
        CharacterTokenizer.fit(["A Dog"], lowercase=True),
        SubwordTokenizer.train(["A Dog"] * 3, vocab_size=30, lowercase=True),
    ):
        assert made.decode(made.encode("A DOG")) == "a dog"
        assert tokenizer_from_json(made.as_json()).encode("A DOG") == made.encode("a dog")


def test_german_abbreviations_are_one_token() -> None:
    text = "Er kauft z.B. Brot."
    german = WordTokenizer.fit([text], language="de")
    assert german.tokenize(text) == ["Er", "kauft", "z.B.", "Brot", "￭."]


def test_invalid_arguments_raise() -> None:
    with pytest.raises(InputError, match=r"cannot split the language 'qq'"):
        WordTokenizer.fit(TEXTS, language="qq")
    with pytest.raises(InputError, match=r"must begin with the special tokens <unk>, <pad>"):
        CharacterTokenizer(["a", "b"])
    with pytest.raises(ArgumentError, match="'bpe' or 'unigram'"):
        SubwordTokenizer.train(TEXTS, kind="wordpiece")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="every text is empty"):
        SubwordTokenizer.train([" ", ""])
    with pytest.raises(InputError, match="no room for subwords beside the 4 special"):
        SubwordTokenizer.train(TEXTS, vocab_size=4)
    with pytest.raises(ArtefactError, match=r"Unknown tokenizer 'words'.*'word'"):
        tokenizer_from_json({"kind": "words"})
