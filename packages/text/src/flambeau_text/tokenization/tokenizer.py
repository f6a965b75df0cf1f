"""``Tokenizer``: the interface of all tokenizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from flambeau_text.text_lines import lines_of
from flambeau_text.tokenization.normalization import normalize
from flambeau_text.vocab import SPECIALS

UNKNOWN_ID, PADDING_ID, BEGIN_ID, END_ID = range(len(SPECIALS))
"""Ids of the special tokens, equal in every vocabulary built by flambeau."""


@dataclass(frozen=True)
class SpecialIds:
    """The ids that a language model needs; in pretrained models some of them may be equal.

    Attributes:
        start: The token that is read before the first token of a document.
        end: The token at the end of a document, or of each line; it is predicted like any other.
        padding: Fills rows; it is never a target, unless it is also the end.
        never: Ids that are never generated.
    """

    start: int = END_ID
    end: int = END_ID
    padding: int = PADDING_ID
    never: tuple[int, ...] = (PADDING_ID, BEGIN_ID)


class Tokenizer(ABC):
    """The base class of tokenizers, which are fitted on train texts and then immutable.

    Ids 0 to 3 are the special tokens of ``flambeau_text.vocab.SPECIALS``. Text is never encoded as
    a special token other than "unknown", even if it contains ``<eos>``.

    Attributes:
        kind: Name of the kind of tokenizer in exports.
        normalization: The Unicode form of texts: "nfc", "nfkc" or "none".
        special: The ids of special tokens in a language model.
        stop: Ids that end the text of a language model; empty without an end.
        keeps_lines: Whether line feeds are part of the tokens, so that a document is encoded as a
            whole; otherwise each line is encoded, and followed by an end token.
        backward: Whether tokens are those of a text from its end to its start.
    """

    kind: ClassVar[str]
    normalization: str = "nfc"
    special: SpecialIds = SpecialIds()
    stop: tuple[int, ...] = ()
    keeps_lines: bool = False
    backward: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """Return the size of the vocabulary, special tokens included."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, without begin and end token."""

    @abstractmethod
    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text as they are written in it, one for each id of ``encode``.

        An unknown token is returned as its text, not as ``<unk>``.
        """

    @abstractmethod
    def ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        """Return the token of each id, special tokens included."""

    @abstractmethod
    def join(self, tokens: Sequence[str]) -> str:
        """Return the text of tokens, as close to the original as the tokenizer allows."""

    def normalize(self, text: str) -> str:
        """Return the text in the form that is tokenized: on one line, in one Unicode form and case.

        Decoding gives texts in this form, so references are normalised before a comparison.
        """
        return normalize(text, self.normalization)

    @abstractmethod
    def arguments(self) -> Mapping[str, Any]:
        """Return JSON values from which the constructor rebuilds the tokenizer."""

    def parts_of(self, text: str) -> list[str]:
        """Return what is encoded of a text, each followed by an end token: lines, or the text."""
        parts = [text] if self.keeps_lines else lines_of(text)
        return parts[::-1] if self.backward else parts

    def encode(self, text: str) -> list[int]:
        """Return the token ids of one text, without begin and end token."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the token ids before the first end token."""
        return self.join(self.ids_to_tokens(content_ids(ids)))

    def as_json(self) -> dict[str, Any]:
        """Return JSON values from which ``tokenizer_from_json`` rebuilds the tokenizer."""
        return {"kind": self.kind, **self.arguments()}


def content_ids(ids: Iterable[int]) -> list[int]:
    """Return the ids up to the first end token, without begin and padding tokens."""
    found: list[int] = []
    for token_id in ids:
        if token_id == END_ID:
            break
        if token_id not in (PADDING_ID, BEGIN_ID):
            found.append(token_id)
    return found
