"""Rule tokens for case and repetition: expected tokens written by hand, and the inverse."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flambeau import Learner
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau_text import (
    CharacterTokenizer,
    LanguageModelData,
    LanguageOptions,
    SubwordTokenizer,
    TextData,
    TextOptions,
    TranslationData,
    TranslationOptions,
    WordTokenizer,
)
from flambeau_text.tokenization import tokenizer_from_json
from flambeau_text.tokenization.word_rules import RULE_TOKENS, undo_rules, without_html
from flambeau_text.vocab import SPECIALS

# Written by hand from the description of the rules. "~" stands for the mark ￭ of a missing space.
TABLE = {
    "a dog runs": "a dog runs",
    "Hello": "xxmaj hello",
    "GREAT movie": "xxup great movie",
    "A man": "xxmaj a man",
    "I saw U.S. and UK": "xxmaj i saw xxup u.s. and xxup uk",
    "(Great)": "(~ xxmaj great ~)",
    "McDonald": "mcdonald",
    "so good!!!": "so good xxrep 3 ~!",
    "!!!!": "xxrep 4 !",
    "aa bb": "aa bb",
    "sooo good": "s xxrep 3 ~o good",
    "Aaah": "xxmaj aaah",  # only two of its letters are equal
    "AAAA": "xxrep 4 xxmaj a",
    "1000 men": "1 xxrep 3 ~0 men",
    "no no": "no no",
    "no no no": "xxwrep 3 no",
    "very very very very good": "xxwrep 4 very good",
    "No no no": "xxmaj no no no",
    "NO NO NO.": "xxwrep 3 xxup no ~.",
    "ha ha ha ha!!!": "xxwrep 4 ha xxrep 3 ~!",
    "and/or": "and ~/~ or",
    "a / b": "a / b",
    "#tag \\n": "#~ tag \\~ n",
    "a   b\tc": "a b c",
    "Tom &amp; Jo": "xxmaj tom & xxmaj jo",
    "ends<br />here": "ends here",
    "he said &quot;no&quot;": 'he said "~ no ~"',
    "x" * 100: "xxrep 99 x ~x",
}


def written(text: str) -> list[str]:
    return text.replace("~", "￭").split()


@pytest.mark.parametrize("text", TABLE)
def test_tokens_equal_the_table(text: str) -> None:
    words = WordTokenizer.fit(list(TABLE), language="en", rules=True)
    assert words.tokenize(text) == written(TABLE[text])
    assert words.ids_to_tokens(words.encode(text)) == written(TABLE[text])


def test_the_rule_tokens_follow_the_special_tokens() -> None:
    words = WordTokenizer.fit(["a b"], language="en", rules=True)
    assert words.vocab.get_itos()[:9] == [*SPECIALS, "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj"]
    with pytest.raises(InputError, match="xxfld, xxrep"):
        WordTokenizer([*SPECIALS, "a"], "en", rules=True)


PLAIN = st.text(st.sampled_from("abzAZ019 .,!?'\"-()/#\\&;<>\n\téÉßİǅ語xXmajupw￭■_"), max_size=40)
REPEATED = st.lists(
    st.sampled_from(["no", "No", "NO", "no ", "! ", "aaa", "xxmaj", "xxrep", "3", "/", "a/", " "]),
    max_size=12,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(text=PLAIN | REPEATED, language=st.sampled_from(["en", None]))
@example(text="xxmaj XXREP 3 a", language="en")
@example(text="&amp;amp;lt;br/&gt;", language="en")
@example(text="no no no no no", language="en")
@example(text="x" * 250, language="en")
def test_decoding_restores_the_normal_form(text: str, language: str | None) -> None:
    normal = WordTokenizer([*SPECIALS, *RULE_TOKENS], language, rules=True).normalize(text)
    words = WordTokenizer.fit([text, normal], language=language, rules=True)
    assert 0 not in words.encode(text)
    assert letters(normal) == letters(unicodedata.normalize("NFC", without_html(text)))
    assert words.decode(words.encode(text)) == normal
    assert letters(words.normalize(normal)) == letters(normal)


def letters(text: str) -> str:
    """The characters without case and spaces; a square may stand for an x or a mark."""
    return re.sub(r"\s+|[x￭■]", "", text.lower())


def test_the_names_of_rule_tokens_are_words() -> None:
    words = WordTokenizer.fit(["an xxmaj and XXREP 3 a"], language="en", rules=True)
    assert words.normalize("an xxmaj and XXREP 3 a") == "an ■xmaj and ■XREP 3 a"
    assert not {"xxmaj", "xxrep"} & set(words.tokenize("an xxmaj and XXREP 3 a"))


CASED = st.sampled_from(
    ["dog", "Dog", "DOG", "I", "A", "é", "École", "ÉCOLE", "b2b", "B2B", "1000", "(Dog)", "dog,"]
)


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(CASED | st.sampled_from(["!!!", "and/or", "wow...", "it's", "#Dog"])))
def test_text_in_usual_case_is_restored_whole(parts: list[str]) -> None:
    text = " ".join(parts)
    words = WordTokenizer.fit([text], language="en", rules=True)
    assert words.decode(words.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(
    tokens=st.lists(st.sampled_from([*RULE_TOKENS, "3", "99", "100", "a", "￭!", "<unk>"])),
)
def test_tokens_in_any_order_have_a_short_text(tokens: list[str]) -> None:
    found = undo_rules(tokens)
    assert not set(found) & set(RULE_TOKENS)
    assert sum(map(len, found)) <= 99 * sum(map(len, tokens))


def test_html_is_unescaped_to_the_end() -> None:
    assert without_html("a &amp;amp;lt; b&lt;br&gt;c &#39;") == "a < b c '"


def test_the_json_values_restore_the_tokenizer() -> None:
    words = WordTokenizer.fit(["NO way!!! NO way!!!"], language="en", rules=True)
    again = tokenizer_from_json(json.loads(json.dumps(words.as_json())))
    assert again.encode("NO way!!!") == words.encode("NO way!!!")
    before = {name: value for name, value in words.as_json().items() if name != "rules"}
    assert tokenizer_from_json(before).rules is False  # an export of an earlier version


TEXTS = [f"A Dog runs {word}!!!\n" for word in ("here", "there", "again", "away", "off")] * 4


def test_the_plan_uses_the_rules_for_words_of_a_language() -> None:
    def chosen(**options: object) -> object:
        data = LanguageModelData.from_texts(TEXTS, options=LanguageOptions(**options))  # type: ignore[arg-type]
        return Learner(data).plan["word_rules"].value

    assert chosen(tokenizer="word", language="en") is True
    assert chosen(tokenizer="word", language="en", word_rules=False) is False
    assert chosen(tokenizer="word", language="en", lowercase=True) is False
    assert chosen(tokenizer="word") is False
    assert chosen(tokenizer="character", language="en") is False
    with pytest.raises(PlanError, match="the rules are for whole words"):
        chosen(tokenizer="bpe", word_rules=True)


def test_labels_are_learned_with_the_rules_if_asked(tmp_path: Path) -> None:
    texts = [f"{word} film {n}!!!" for n in range(6) for word in ("GOOD", "Bad", "good", "bad")]
    labels = ["pos", "neg"] * 12

    def learner_of(**options: Any) -> Learner:
        data = TextData.from_arrays(texts, labels, valid=4, options=TextOptions(**options))
        return Learner(data, choices={"probe": "off"}, quiet=True)

    plain, learner = learner_of(), learner_of(word_rules=True)
    assert (plain.plan.values["word_rules"], plain.plan.values["lowercase"]) == (False, True)
    assert learner.plan.values["lowercase"] is False
    tokenizer: Any = learner.built.preprocessor.tokenizer  # type: ignore[attr-defined]
    assert tokenizer.tokenize("GOOD film!!!") == ["xxup", "good", "film", "xxrep", "3", "￭!"]
    learner.fit(1)
    export = learner.export(tmp_path / "export")
    like: Any = Learner(
        TextData.from_arrays(texts, labels, options=TextOptions(like=export)), quiet=True
    )
    assert like.built.preprocessor.tokenizer.as_json() == tokenizer.as_json()
    with pytest.raises(PlanError, match="capitals are tokens, which lower-cased texts"):
        learner_of(word_rules=True, lowercase=True)
    with pytest.raises(PlanError, match="the rules are for whole words"):
        learner_of(word_rules=True, tokenizer="bpe")
    with pytest.raises(ArgumentError, match="word_rules must be True or False, not 'no'"):
        TextOptions(word_rules="no")  # type: ignore[arg-type]


def test_flags_of_tokenizers_are_checked() -> None:
    for build in (WordTokenizer.fit, CharacterTokenizer.fit):
        with pytest.raises(ArgumentError, match="lowercase must be True or False, not 'no'"):
            build(["a b"], lowercase="no")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="lowercase must be True or False, not 1"):
        SubwordTokenizer.train(["a b"], kind="bpe", vocab_size=9, lowercase=1)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="rules must be True or False"):
        WordTokenizer([], rules="yes")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="has no argument 'lower_case'"):
        WordTokenizer.fit(["a"], lower_case=True)  # type: ignore[call-arg]


def test_translation_never_uses_the_rules() -> None:
    pairs = [(text.strip(), text.strip()) for text in TEXTS]
    options = TranslationOptions(tokenizer="word", source_language="en", target_language="en")
    learner = Learner(TranslationData.from_pairs(pairs, options=options))
    assert learner.built.preprocessor.target.rules is False
    assert "word_rules" not in learner.plan.values
