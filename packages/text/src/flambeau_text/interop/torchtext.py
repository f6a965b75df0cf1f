"""torchtext's objects as ours, told by what they can do: torchtext itself is never imported here.

torchtext is no longer developed, and its last release (0.18) does not load beside a current torch.
Objects that were made with it, in an environment where it still runs, are read here; this module
and what it imports load there too, without an installed ``flambeau-text``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flambeau_text.vocab import Vocab

PINS = "torch==2.3.1 and torchtext==0.18.0"
"""The last releases that work together."""


def as_vocab(vocab: Any) -> Vocab:
    """A vocabulary with the same numbers.

    Args:
        vocab: torchtext's ``Vocab``, or anything with ``get_itos``; a default index is taken along.

    Raises:
        TypeError: It has no ``get_itos``.
    """
    if not hasattr(vocab, "get_itos"):
        raise TypeError(
            f"A {type(vocab).__name__} has no get_itos(), so it is no vocabulary. Give torchtext's "
            "Vocab; the vocabulary of a legacy Field is field.vocab, see from_legacy_field."
        )
    default = vocab.get_default_index() if hasattr(vocab, "get_default_index") else None
    return Vocab(vocab.get_itos(), default)


def as_transform(transform: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A plain function that does what a transform module does.

    Raises:
        TypeError: It cannot be called.
    """
    if not callable(transform):
        raise TypeError(f"A {type(transform).__name__} cannot be called, so it is no transform.")

    def transformed(entries: Any) -> Any:
        return transform(entries)

    return transformed


def as_dataset(source: Iterable[Any]) -> list[tuple[Any, ...]]:
    """The rows of a data set or datapipe, read once into a list of tuples.

    Data sets of torchtext are streams whose files may be gone; a list can be split, shuffled and
    resumed. For sentence pairs hand it to ``TranslationData.from_pairs``.

    Raises:
        TypeError: It cannot be iterated over.
    """
    if not hasattr(source, "__iter__"):
        raise TypeError(f"A {type(source).__name__} cannot be iterated over: it is no data set.")
    return [tuple(row) if isinstance(row, list | tuple) else (row,) for row in _rows(source)]


def _rows(source: Iterable[Any]) -> Iterator[Any]:
    yield from source


def from_legacy_field(field: Any) -> tuple[Vocab, Callable[[str], list[str]]]:
    """Vocabulary and tokenizer of a ``Field`` of torchtext up to 0.11.

    Args:
        field: With a vocabulary that is built already (``field.build_vocab``).

    Returns:
        The vocabulary, whose unknown tokens have the field's number for them, and a function from
        a text to its tokens, lower-cased where the field does so.

    Raises:
        TypeError: It has no vocabulary, or none yet.
    """
    words = getattr(field, "vocab", None)
    if words is None or not hasattr(words, "itos"):
        raise TypeError(
            f"A {type(field).__name__} has no built vocabulary. Give a legacy Field after "
            "field.build_vocab(…)."
        )
    tokens = list(words.itos)
    unknown = getattr(field, "unk_token", None)
    vocab = Vocab(tokens, tokens.index(unknown) if unknown in tokens else None)
    cut: Callable[[str], list[str]] = getattr(field, "tokenize", None) or str.split
    lower = bool(getattr(field, "lower", False))

    def tokenize(text: str) -> list[str]:
        return [token.lower() if lower else token for token in cut(text.rstrip("\n"))]

    return vocab, tokenize


def to_torchtext(vocab: Vocab) -> Any:
    """torchtext's ``Vocab`` with the same numbers, where torchtext can be imported.

    Raises:
        ImportError: It cannot; the message names the releases that work together.
    """
    try:
        # Not in the lock: it does not load beside a current torch.
        from torchtext.vocab import vocab as make  # type: ignore[import-not-found]  # no dependency
    except (ImportError, OSError) as error:
        raise ImportError(
            f"torchtext cannot be imported here ({type(error).__name__}). Its last release works "
            f"with {PINS} alone; make an environment of its own for it."
        ) from error
    # Equal counts keep the order.
    made = make(dict.fromkeys(vocab.get_itos(), 1))
    if vocab.get_default_index() is not None:
        made.set_default_index(vocab.get_default_index())
    return made
