"""Tokenizers that the user passes in ``TranslationOptions(tokenizer=…)`` instead of a name."""

from __future__ import annotations

from typing import Any

from flambeau.errors import ArgumentError
from flambeau_text.tokenization import Tokenizer
from flambeau_text.tokenization.fit import as_tokenizer, check_given, tokenizer_name


def both_sides(given: Any) -> tuple[Any, Any]:
    """Return the objects for source and target: a pair, or one for both.

    Raises:
        ArgumentError: An object is no tokenizer, or its class is not registered.
    """
    pair = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(pair) != 2:
        raise ArgumentError(f"tokenizer has {len(pair)} entries; give one, or (source, target).")
    for each in pair:
        check_given(each)
    return pair[0], pair[1]


def plan_values(given: Any) -> dict[str, Any]:
    """Return the choices of the plan that given tokenizers determine."""
    source, target = both_sides(given)
    names = dict.fromkeys((tokenizer_name(source), tokenizer_name(target)))
    free = max(len(each) + (0 if isinstance(each, Tokenizer) else 4) for each in (source, target))
    return {
        "tokenizer": " and ".join(names),
        "vocab_size": free,
        "shared_vocab": source is target,
    }


def as_tokenizers(given: Any, lowercase: bool, normalization: str) -> tuple[Tokenizer, Tokenizer]:
    """Return the tokenizers of source and target, one object if both sides share it.

    Raises:
        ArgumentError: A user-defined tokenizer cannot be saved.
        InputError: Texts are to be lower-cased, but a fitted tokenizer keeps their case.
    """
    source, target = both_sides(given)
    first = as_tokenizer(source, lowercase, normalization)
    same = source is target
    return first, first if same else as_tokenizer(target, lowercase, normalization)
