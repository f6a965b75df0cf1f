"""``Tokenizer``: what the data, the preprocessor and the task ask of every kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from flambeau_text.vocab import SPECIALS

UNKNOWN_ID, PADDING_ID, BEGIN_ID, END_ID = range(len(SPECIALS))
"""The numbers of the specials are the same in every vocabulary that flambeau makes."""


class Tokenizer(ABC):
    """Text to token numbers and back, fitted on train texts and then frozen.

    The first four numbers are the specials of ``flambeau_text.vocab.SPECIALS``; what a text says
    never becomes one of them but "unknown", even where it reads ``<eos>``.

    Attributes:
        kind: Its name in artefacts.
    """

    kind: ClassVar[str]

    @abstractmethod
    def __len__(self) -> int:
        """Tokens in the vocabulary, specials included."""

    @abstractmethod
    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers of each text, without begin and end."""

    @abstractmethod
    def split(self, text: str) -> list[str]:
        """The tokens of a text as they stand in it, unknown ones too; one for each number."""

    @abstractmethod
    def tokens(self, numbers: Iterable[int]) -> list[str]:
        """The token of each number, specials too."""

    @abstractmethod
    def join(self, tokens: Sequence[str]) -> str:
        """The text of tokens: the way back, as far as there is one."""

    @abstractmethod
    def arguments(self) -> Mapping[str, Any]:
        """JSON values that rebuild it."""

    def encode(self, text: str) -> list[int]:
        """The numbers of one text, without begin and end."""
        return self.encode_all([text])[0]

    def decode(self, numbers: Iterable[int]) -> str:
        """The text of token numbers, up to the first end; begin and padding are left out."""
        return self.join(self.tokens(spoken(numbers)))

    def as_json(self) -> dict[str, Any]:
        """Kind and arguments; ``tokenizer_from_json`` takes them back."""
        return {"kind": self.kind, **self.arguments()}


def spoken(numbers: Iterable[int]) -> list[int]:
    """The numbers up to the first end, without begin and padding."""
    found: list[int] = []
    for number in numbers:
        if number == END_ID:
            break
        if number not in (PADDING_ID, BEGIN_ID):
            found.append(number)
    return found
