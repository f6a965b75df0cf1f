"""Fit the tokenizer that the plan chose, or take the one that the user passed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau_text.tokenization.characters import CharacterTokenizer
from flambeau_text.tokenization.custom import CustomTokenizer, registered_name
from flambeau_text.tokenization.subwords import SubwordTokenizer
from flambeau_text.tokenization.tokenizer import Tokenizer
from flambeau_text.tokenization.words import WordTokenizer

TOKENIZERS = ("bpe", "unigram", "word", "character")
"""The kinds of tokenizers that are fitted on train texts."""


def fit_tokenizer(
    texts: Collection[str], values: Mapping[str, Any], language: str | None, lowercase: bool
) -> Tokenizer:
    """Fit one tokenizer, for one side (source or target) or for both sides.

    Raises:
        PlanError: The plan's tokenizer is unknown.
    """
    kind, size = values["tokenizer"], values["vocab_size"]
    case: Any = {"lowercase": lowercase, "normalization": values["normalization"]}
    if kind == "word":
        # Words that occur once cannot be learned; as unknown words they train the unknown token.
        min_freq = 1 if len(texts) < 2_000 else 2
        return WordTokenizer.fit(
            texts,
            language=language,
            # Translation has no such choice: its references are compared as they are written.
            rules=values.get("word_rules", False),
            min_freq=min_freq,
            max_tokens=size,
            **case,
        )
    if kind == "character":
        return CharacterTokenizer.fit(texts, max_tokens=size, **case)
    if kind in ("bpe", "unigram"):
        return SubwordTokenizer.train(texts, kind=cast("Any", kind), vocab_size=size, **case)
    raise PlanError(
        f"The plan's tokenizer is {kind!r}; it must be one of {', '.join(TOKENIZERS)}, or that of "
        "an object in the options of the data: tokenizer=…."
    )


def check_given(given: Any) -> None:
    """Check that an object is a tokenizer whose class can be saved.

    Raises:
        ArgumentError: It lacks a method, or its class is not registered.
    """
    missing = [name for name in ("encode", "decode", "__len__") if not hasattr(given, name)]
    if missing:
        raise ArgumentError(
            f"tokenizer={given!r:.60} lacks {', '.join(missing)}: give a name, or an object "
            "with encode(text), decode(ids) and __len__()."
        )
    tokenizer_name(given)


def tokenizer_name(given: Any) -> str:
    """Return the plan's name of the tokenizer: that of its kind, or the registered one."""
    if isinstance(given, CustomTokenizer):
        return given.name
    return given.kind if isinstance(given, Tokenizer) else registered_name(given)


def as_tokenizer(given: Any, lowercase: bool, normalization: str) -> Tokenizer:
    """Return the tokenizer that the user passed, wrapped if its class is not of this package.

    Raises:
        ArgumentError: A user-defined tokenizer cannot be saved.
        InputError: Texts are to be lower-cased, but a fitted tokenizer keeps their case.
    """
    if not isinstance(given, Tokenizer):
        return CustomTokenizer.of(given, lowercase=lowercase, normalization=normalization)
    if lowercase and given.normalize("A") != "a":
        raise InputError(
            f"lowercase=True, but the given tokenizer ({given.kind}) keeps the case of texts. "
            "Train it on lower-case texts with lowercase=True, or leave lowercase out."
        )
    return given
