"""``LanguageFacts``: statistics of the train documents, the input of the plan's rules."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from flambeau.data.facts import Facts
from flambeau.data.split import PARTS, Split
from flambeau_text.language.options import LanguageOptions
from flambeau_text.text_lines import lines_of
from flambeau_text.tokenization.fit import TOKENIZERS, tokenizer_name
from flambeau_text.word_count import count_words, script_of

_SAMPLE, _LETTERS = 1_000, 1_000  # lines whose script is looked at, and characters of each

if TYPE_CHECKING:
    from typing import Required  # typing has ReadOnly from Python 3.13

    from typing_extensions import ReadOnly


class LanguageFacts(Facts, total=False):
    """The facts of every kind of data, and statistics of the train documents.

    Attributes:
        lines: Number of lines.
        words: Number of words, without line ends.
        characters: Number of characters, line ends included.
        distinct_words: Number of distinct words, as split at white space.
        unknown_words: Number of words that are "<unk>": the text was tokenized and its rare words
            were replaced.
        unspaced: "ja", "zh" or "th" for a script without spaces between words; else None.
        n_other_form: Number of lines that are not in the Unicode form NFC.
        language: Language code, if known.
        lowercase: Whether texts are converted to lower case.
        given_tokenizer: Name of the tokenizer that the user passed as an object, or of that of the
            export ``like``; None if it is fitted.
        language_model: Folder, checksum, number of tokens and limits of the pretrained decoder;
            absent without one.
    """

    lines: ReadOnly[Required[int]]
    words: ReadOnly[Required[int]]
    characters: ReadOnly[Required[int]]
    distinct_words: ReadOnly[Required[int]]
    unknown_words: ReadOnly[Required[int]]
    unspaced: ReadOnly[Required[str | None]]
    n_other_form: ReadOnly[Required[int]]
    language: ReadOnly[Required[str | None]]
    lowercase: ReadOnly[Required[bool]]
    given_tokenizer: ReadOnly[Required[str | None]]
    language_model: ReadOnly[Mapping[str, Any]]


def language_facts(texts: Sequence[str], split: Split, options: LanguageOptions) -> LanguageFacts:
    """Return the facts of the train documents."""
    distinct: set[str] = set()
    lines = words = characters = unknown = other_form = 0
    some: list[str] = []
    for row in split.train.tolist():
        for line in lines_of(str(texts[row])):
            text = line.lower() if options.lowercase else line
            found = text.split()
            distinct.update(found)
            lines += 1
            words += count_words(text)
            characters += len(text) + 1
            unknown += found.count("<unk>")
            other_form += not unicodedata.is_normalized("NFC", line)
            if len(some) < _SAMPLE and found:
                some.append(line[:_LETTERS])
    facts: dict[str, Any] = {
        **{f"n_{part}": len(split.part(part)) for part in PARTS},
        "split": split.describe(),
        "in_memory": True,
        "lines": lines,
        "words": words,
        "characters": characters,
        "distinct_words": len(distinct),
        "unknown_words": unknown,
        "unspaced": script_of(some),
        "n_other_form": other_form,
        "language": options.language,
        "lowercase": bool(options.lowercase),
        "given_tokenizer": _given_tokenizer(options),
    }
    if options.decoder is not None:
        facts["language_model"] = options.decoder.as_facts()
    return cast("LanguageFacts", facts)


def _given_tokenizer(options: LanguageOptions) -> str | None:
    if options.given_tokenizer is not None:
        return tokenizer_name(options.given_tokenizer)
    return None if options.tokenizer in (None, *TOKENIZERS) else str(options.tokenizer)
