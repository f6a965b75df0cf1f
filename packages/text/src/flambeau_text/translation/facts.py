"""``TranslationFacts``: statistics of the train pairs, the input of the plan's rules."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from flambeau.data.facts import Facts
from flambeau.data.split import PARTS, Split
from flambeau_text.tokenization.fit import TOKENIZERS
from flambeau_text.tokenization.normalization import normalize
from flambeau_text.translation.given_tokenizers import plan_values
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.word_count import count_words, script_of

_SAMPLE = 1_000  # train pairs whose scripts are looked at

if TYPE_CHECKING:
    from typing import Required  # typing has ReadOnly from Python 3.13

    from typing_extensions import ReadOnly


class TranslationFacts(Facts, total=False):
    """The facts of every kind of data, the languages, and statistics of the train pairs.

    Attributes:
        unspaced: ``{"source": …, "target": …}``: for a side written without spaces between words
            "ja", "zh", or "th" for Thai and similar scripts; None for any other side.
        source_words: Number of words of the source sentences.
        target_words: Number of words of the target sentences.
        source_distinct_words: Number of distinct words of the source sentences.
        target_distinct_words: Number of distinct words of the target sentences.
        mean_words: Mean number of words of a pair, on both sides together.
        longest_words: Number of words of the longest sentence of either side.
        longest_characters: Number of characters of the longest sentence of either side.
        shared_words: Fraction of the target words, counting repetitions, that occur in sources.
        source_language: Language code, if known.
        target_language: Language code, if known.
        lowercase: Whether sentences are converted to lower case.
        n_other_form: Number of train texts, of both sides, that are not in the Unicode form NFC.
        given_tokenizer: Name of the tokenizers that the user passed as objects, or of those of the
            export ``like``; None if they are fitted.
    """

    unspaced: ReadOnly[Required[Mapping[str, str | None]]]
    source_words: ReadOnly[Required[int]]
    target_words: ReadOnly[Required[int]]
    source_distinct_words: ReadOnly[Required[int]]
    target_distinct_words: ReadOnly[Required[int]]
    mean_words: ReadOnly[Required[float]]
    longest_words: ReadOnly[Required[int]]
    longest_characters: ReadOnly[Required[int]]
    shared_words: ReadOnly[Required[float]]
    source_language: ReadOnly[Required[str | None]]
    target_language: ReadOnly[Required[str | None]]
    lowercase: ReadOnly[Required[bool]]
    n_other_form: ReadOnly[Required[int]]
    given_tokenizer: ReadOnly[Required[str | None]]


def translation_facts(
    sources: Sequence[str], targets: Sequence[str], split: Split, options: TranslationOptions
) -> TranslationFacts:
    """Return the facts of the train pairs."""
    sides: dict[str, Any] = {}
    form, n_other_form = options.normalization or "nfc", 0
    counts: dict[str, Counter[str]] = {}
    for side, texts in (("source", sources), ("target", targets)):
        found: Counter[str] = Counter()
        n_words = longest_words = longest_characters = 0
        for row in split.train.tolist():
            raw = str(texts[row])
            n_other_form += not unicodedata.is_normalized("NFC", raw)
            text = normalize(raw, form)
            text = text.lower() if options.lowercase else text
            words = text.split()
            found.update(words)
            n_words += (count := count_words(text))
            longest_words = max(longest_words, count)
            longest_characters = max(longest_characters, len(text))
        counts[side] = found
        sides[f"{side}_words"] = n_words
        sides[f"{side}_distinct_words"] = len(found)
        sides["longest_words"] = max(longest_words, sides.get("longest_words", 0))
        sides["longest_characters"] = max(longest_characters, sides.get("longest_characters", 0))
    shared = sum(n for word, n in counts["target"].items() if word in counts["source"])
    n_train = len(split.train)
    some = split.train[:_SAMPLE].tolist()
    both = {"source": sources, "target": targets}
    unspaced = {side: script_of([str(texts[row]) for row in some]) for side, texts in both.items()}
    facts: dict[str, Any] = {
        **{f"n_{part}": len(split.part(part)) for part in PARTS},
        "split": split.describe(),
        "in_memory": True,
        "unspaced": unspaced,
        **sides,
        "mean_words": round((sides["source_words"] + sides["target_words"]) / n_train, 2),
        "shared_words": round(shared / max(1, counts["target"].total()), 4),
        "source_language": options.source_language,
        "target_language": options.target_language,
        "lowercase": bool(options.lowercase),
        "n_other_form": n_other_form,
        "given_tokenizer": _given_tokenizer(options),
    }
    return cast("TranslationFacts", facts)


def _given_tokenizer(options: TranslationOptions) -> str | None:
    if options.given_tokenizers is not None:
        return str(plan_values(options.given_tokenizers)["tokenizer"])
    return None if options.tokenizer in (None, *TOKENIZERS) else str(options.tokenizer)
