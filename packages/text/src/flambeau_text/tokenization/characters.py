"""``CharacterTokenizer``: each character is a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from flambeau_text.tokenization.listed import ListedTokenizer, counted
from flambeau_text.tokenization.tokenizer import UNKNOWN_ID
from flambeau_text.vocab import SPECIALS


class CharacterTokenizer(ListedTokenizer):
    """Characters (code points, in NFC) that were seen in train; others are unknown.

    Args:
        tokens: The characters, specials first.
        lowercase: Whether texts are lower-cased first.

    Example:
        >>> letters = CharacterTokenizer.fit(["abba"])
        >>> letters.encode("ba?"), letters.decode([5, 4])
        ([5, 4, 0], 'ba')
    """

    kind: ClassVar[str] = "character"

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        *,
        lowercase: bool = False,
        min_freq: int = 1,
        max_tokens: int | None = None,
    ) -> CharacterTokenizer:
        """The most frequent characters of the texts.

        Args:
            texts: Of train.
            lowercase: Whether texts are lower-cased first.
            min_freq: Rarer characters are unknown.
            max_tokens: The most that the vocabulary holds.
        """
        empty = cls(SPECIALS, lowercase)
        tokens, _ = counted(empty.split_all(texts), min_freq, max_tokens)
        return cls(tokens, lowercase)

    def cutter(self, texts: Sequence[str]) -> list[list[str]]:
        return [list(text) for text in texts]

    def join(self, tokens: Sequence[str]) -> str:
        # U+FFFD is the sign for a character that cannot be shown.
        return "".join("\ufffd" if token == SPECIALS[UNKNOWN_ID] else token for token in tokens)
