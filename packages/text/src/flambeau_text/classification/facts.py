"""``TextFacts``: measurements of the train texts, the input of the plan's rules."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flambeau.data.facts import Facts
from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau.data.targets import Targets
from flambeau.tensors.base_data import describe_target
from flambeau_text.classification.assemble import SECOND_TEXT, TEXT, WEIGHT
from flambeau_text.classification.options import TextOptions
from flambeau_text.tokenization.fit import TOKENIZERS, tokenizer_name
from flambeau_text.word_count import count_words, script_of

_SCRIPT_SAMPLE = 1_000  # texts whose script is looked at
PERCENTS = (*range(100), 99.5, 99.9, 100)
"""Percentiles of the lengths of texts that are facts."""

if TYPE_CHECKING:
    from typing import Required

    from typing_extensions import ReadOnly


class TextFacts(Facts, total=False):
    """The facts of every kind of data, and statistics of the train texts.

    Attributes:
        n_texts: 1, or 2 for pairs of texts; further facts count both texts of a pair.
        label_kind: The task that follows from the labels.
        label_reason: The property of the labels that decided the task.
        words: Number of words.
        characters: Number of characters.
        distinct_words: Number of distinct words, in lower case, as split at white space.
        word_percentiles: Number of words of a text at each of the `PERCENTS`.
        character_percentiles: Number of characters of a text at each of the `PERCENTS`.
        upper_words: Share of words that are distinct only by their case.
        unspaced: "ja", "zh" or "th" for a script without spaces between words; else None.
        n_other_form: Number of texts that are not in the Unicode form NFC.
        language: Language code, if known.
        given_tokenizer: Name of the tokenizer that the user passed as an object, or of that of the
            export ``like``; None if it is fitted.
        language_model: Folder, checksum, sizes and number of tokens of the language model from
            which a classifier can start; absent without one.
    """

    n_texts: ReadOnly[Required[int]]
    label_kind: ReadOnly[Required[str]]
    label_reason: ReadOnly[Required[str]]
    words: ReadOnly[Required[int]]
    characters: ReadOnly[Required[int]]
    distinct_words: ReadOnly[Required[int]]
    word_percentiles: ReadOnly[Required[list[int]]]
    character_percentiles: ReadOnly[Required[list[int]]]
    upper_words: ReadOnly[Required[float]]
    unspaced: ReadOnly[Required[str | None]]
    n_other_form: ReadOnly[Required[int]]
    language: ReadOnly[Required[str | None]]
    given_tokenizer: ReadOnly[Required[str | None]]
    language_model: ReadOnly[Mapping[str, Any]]


def text_facts(samples: Samples, targets: Targets, split: Split, options: TextOptions) -> TextFacts:
    """Return the facts of the train texts."""
    rows = split.train.tolist()
    n_texts = 2 if SECOND_TEXT in samples.columns else 1
    columns = [samples[name] for name in (TEXT, SECOND_TEXT)[:n_texts]]
    texts = [column[row] for column in columns for row in rows]
    chosen = targets.select(split.train)
    weights: Any = samples[WEIGHT] if WEIGHT in samples.columns else None
    weights = None if weights is None else weights[split.train]
    names = None if targets.kind == "regression" else targets.names
    facts: dict[str, Any] = {
        **{f"n_{part}": len(split.part(part)) for part in PARTS},
        "split": split.describe(),
        "in_memory": True,
        "n_texts": n_texts,
        "label_kind": targets.kind,
        "label_reason": targets.reason,
        **describe_target(
            chosen.values, names if targets.kind == "classification" else None, weights
        ),
        **_lengths(texts),
        "unspaced": script_of(texts[:_SCRIPT_SAMPLE]),
        "n_other_form": sum(not unicodedata.is_normalized("NFC", text) for text in texts),
        "language": options.language,
        "given_tokenizer": _given_tokenizer(options),
    }
    if (encoder := options.encoder) is not None:
        facts["language_model"] = encoder.as_facts()
    if targets.kind == "multi_label":
        facts["class_names"] = list(targets.names)
        facts["class_counts"] = list(chosen.counts().values())
    return cast("TextFacts", facts)


def _lengths(texts: Sequence[str]) -> Mapping[str, Any]:
    """Return the numbers of words and characters, and their percentiles over the texts."""
    distinct: set[str] = set()
    for text in texts:
        distinct.update(text.split())
    lower = {word.lower() for word in distinct}
    words = np.array([count_words(text) for text in texts])
    characters = np.array([len(text) for text in texts])
    return {
        "words": int(words.sum()),
        "characters": int(characters.sum()),
        "distinct_words": len(lower),
        "word_percentiles": _percentiles(words),
        "character_percentiles": _percentiles(characters),
        "upper_words": round(1.0 - len(lower) / max(1, len(distinct)), 4),
    }


def _percentiles(values: np.ndarray) -> list[int]:
    return [int(each) for each in np.percentile(values, PERCENTS, method="inverted_cdf")]


def _given_tokenizer(options: TextOptions) -> str | None:
    if options.given_tokenizer is not None:
        return tokenizer_name(options.given_tokenizer)
    return None if options.tokenizer in (None, *TOKENIZERS) else str(options.tokenizer)
