"""From the plan's values to what is fitted on train: tokenizers and the preprocessor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from flambeau.errors import PlanError
from flambeau_text.tokenization import (
    CharacterTokenizer,
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
)
from flambeau_text.translation.options import TOKENIZERS, TranslationOptions
from flambeau_text.translation.preprocess import TranslationPreprocessor
from flambeau_text.translation.seen import SeenText

KEYS = ("tokenizer", "vocab_size", "shared_vocab", "max_tokens")
"""Keys of the plan that decide what is fitted."""


def fit_preprocessor(
    sources: Sequence[str],
    targets: Sequence[str],
    values: Mapping[str, Any],
    options: TranslationOptions,
) -> TranslationPreprocessor:
    """The preprocessor of train sentences.

    Args:
        sources: Of train.
        targets: Of train.
        values: The plan's, by key.
        options: Languages and case.
    """
    source_language, target_language = options.source_language, options.target_language
    if values["shared_vocab"]:
        # One language's rules cannot cut two languages.
        joint = fit_tokenizer([*sources, *targets], values, None, options.lowercase)
        source = target = joint
    else:
        source = fit_tokenizer(sources, values, source_language, options.lowercase)
        target = fit_tokenizer(targets, values, target_language, options.lowercase)
    return TranslationPreprocessor(
        source=source,
        target=None if target is source else target,
        max_tokens=values["max_tokens"],
        seen=SeenText.of(sources, targets, source_language, target_language),
    )


def fit_tokenizer(
    texts: Sequence[str], values: Mapping[str, Any], language: str | None, lowercase: bool
) -> Tokenizer:
    """One side's tokenizer.

    Raises:
        PlanError: The plan names no tokenizer that there is.
    """
    kind, size = values["tokenizer"], values["vocab_size"]
    if kind == "word":
        # Words seen once cannot be learned, and teach the model what to do with unknown ones.
        least = 1 if len(texts) < 2_000 else 2
        return WordTokenizer.fit(
            texts, language=language, lowercase=lowercase, min_freq=least, max_tokens=size
        )
    if kind == "character":
        return CharacterTokenizer.fit(texts, lowercase=lowercase, max_tokens=size)
    if kind in ("bpe", "unigram"):
        return SubwordTokenizer.train(
            texts, kind=cast("Any", kind), vocab_size=size, lowercase=lowercase
        )
    raise PlanError(f"The plan's tokenizer is {kind!r}; it must be one of {', '.join(TOKENIZERS)}.")
