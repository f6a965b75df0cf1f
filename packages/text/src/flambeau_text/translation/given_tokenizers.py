"""Tokenizers that the user passes in ``TranslationOptions(tokenizer=…)`` instead of a name."""

from __future__ import annotations

from typing import Any

from flambeau.errors import ArgumentError, InputError
from flambeau_text.tokenization import CustomTokenizer, Tokenizer
from flambeau_text.tokenization.custom import registered_name


def both_sides(given: Any) -> tuple[Any, Any]:
    """Return the objects for source and target: a pair, or one for both.

    Raises:
        ArgumentError: An object is no tokenizer, or its class is not registered.
    """
    pair = tuple(given) if isinstance(given, tuple | list) else (given, given)
    if len(pair) != 2:
        raise ArgumentError(f"tokenizer has {len(pair)} entries; give one, or (source, target).")
    for each in pair:
        missing = [name for name in ("encode", "decode", "__len__") if not hasattr(each, name)]
        if missing:
            raise ArgumentError(
                f"tokenizer={each!r:.60} lacks {', '.join(missing)}: give a name, or an object "
                "with encode(text), decode(ids) and __len__()."
            )
        tokenizer_name(each)
    return pair[0], pair[1]


def tokenizer_name(given: Any) -> str:
    """Return the plan's name of the tokenizer: that of its kind, or the registered one."""
    if isinstance(given, CustomTokenizer):
        return given.name
    return given.kind if isinstance(given, Tokenizer) else registered_name(given)


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
    first = _as_tokenizer(source, lowercase, normalization)
    same = source is target
    return first, first if same else _as_tokenizer(target, lowercase, normalization)


def _as_tokenizer(given: Any, lowercase: bool, normalization: str) -> Tokenizer:
    if not isinstance(given, Tokenizer):
        return CustomTokenizer.of(given, lowercase=lowercase, normalization=normalization)
    if lowercase and given.normalize("A") != "a":
        raise InputError(
            f"lowercase=True, but the given tokenizer ({given.kind}) keeps the case of texts. "
            "Train it on lower-case texts with lowercase=True, or leave lowercase out."
        )
    return given
