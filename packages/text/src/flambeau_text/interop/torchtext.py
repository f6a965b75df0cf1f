"""Conversions from and to torchtext.

torchtext is no longer developed, and its last release (0.18) cannot be imported with a current
torch. Only ``to_torchtext`` imports it; the other functions recognise its objects by their methods.
This module and the modules that it imports can also be loaded from their files in an environment
with torchtext in which ``flambeau-text`` is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flambeau_text.vocab import Vocab

PINS = "torch==2.3.1 and torchtext==0.18.0"
"""The last releases of torchtext and torch that work together."""


def as_vocab(vocab: Any) -> Vocab:
    """Return a `Vocab` with the tokens and indices of another vocabulary.

    Args:
        vocab: torchtext's ``Vocab``, or any object with ``get_itos``; a default index is kept.

    Raises:
        TypeError: The object has no ``get_itos``.
    """
    if not hasattr(vocab, "get_itos"):
        raise TypeError(
            f"A {type(vocab).__name__} is not a vocabulary: it has no get_itos(). Give torchtext's "
            "Vocab; for a legacy Field use from_legacy_field(field)."
        )
    default = vocab.get_default_index() if hasattr(vocab, "get_default_index") else None
    return Vocab(vocab.get_itos(), default)


def as_transform(transform: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a plain function that applies a transform module.

    Raises:
        TypeError: ``transform`` is not callable.
    """
    if not callable(transform):
        raise TypeError(f"A {type(transform).__name__} is not a transform: it is not callable.")

    def apply(entries: Any) -> Any:
        return transform(entries)

    return apply


def as_dataset(source: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Read the rows of a data set or datapipe once into a list of tuples.

    torchtext's data sets are streams, but a list can be split and shuffled. Pass a list of sentence
    pairs to ``TranslationData.from_pairs``.

    Raises:
        TypeError: The object cannot be iterated over.
    """
    if not hasattr(source, "__iter__"):
        raise TypeError(f"A {type(source).__name__} is not a data set: it cannot be iterated over.")
    return [tuple(row) if isinstance(row, list | tuple) else (row,) for row in _rows(source)]


def _rows(source: Iterable[Any]) -> Iterator[Any]:
    yield from source


def from_legacy_field(field: Any) -> tuple[Vocab, Callable[[str], list[str]]]:
    """Return the vocabulary and the tokenizer of a ``Field`` of torchtext 0.11 or earlier.

    Args:
        field: A field whose vocabulary has been built (``field.build_vocab``).

    Returns:
        The vocabulary, whose default index is that of the field's unknown token; and a function
        that splits a text into tokens, and lower-cases them if the field does.

    Raises:
        TypeError: The object has no built vocabulary.
    """
    legacy_vocab = getattr(field, "vocab", None)
    if legacy_vocab is None or not hasattr(legacy_vocab, "itos"):
        raise TypeError(
            f"A {type(field).__name__} has no built vocabulary. Give a legacy Field after "
            "field.build_vocab(…)."
        )
    tokens = list(legacy_vocab.itos)
    unknown = getattr(field, "unk_token", None)
    vocab = Vocab(tokens, tokens.index(unknown) if unknown in tokens else None)
    split: Callable[[str], list[str]] = getattr(field, "tokenize", None) or str.split
    lower = bool(getattr(field, "lower", False))

    def tokenize(text: str) -> list[str]:
        return [token.lower() if lower else token for token in split(text.rstrip("\n"))]

    return vocab, tokenize


def to_torchtext(vocab: Vocab) -> Any:
    """Return torchtext's ``Vocab`` with the same indices.

    Raises:
        ImportError: torchtext cannot be imported; the message names the releases of torchtext and
            torch that work together.
    """
    try:
        # Not in the lock: it cannot be imported with a current torch.
        from torchtext.vocab import vocab as make  # type: ignore[import-not-found]  # no dependency
    except (ImportError, OSError) as error:
        raise ImportError(
            f"torchtext cannot be imported ({type(error).__name__}). Its last release works only "
            f"with {PINS}; install these two in a separate environment."
        ) from error
    # Equal counts keep the order.
    converted = make(dict.fromkeys(vocab.get_itos(), 1))
    if vocab.get_default_index() is not None:
        converted.set_default_index(vocab.get_default_index())
    return converted
