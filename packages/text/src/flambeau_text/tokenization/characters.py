"""``CharacterTokenizer``: one token per character."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from flambeau.errors import explains_arguments
from flambeau_text.tokenization.tokenizer import UNKNOWN_ID
from flambeau_text.tokenization.vocab_tokenizer import VocabTokenizer, vocabulary_tokens
from flambeau_text.vocab import SPECIALS


@explains_arguments()
class CharacterTokenizer(VocabTokenizer):
    """A tokenizer with one token for each character (Unicode code point) of the train texts.

    Characters that no train text contains are unknown.

    Args:
        tokens: The characters, special tokens first.
        lowercase: Whether texts are lower-cased first.
        normalization: The Unicode form of texts.

    Example:
        >>> letters = CharacterTokenizer.fit(["abba"])
        >>> letters.encode("ba?"), letters.decode([5, 4])
        ([5, 4, 0], 'ba')
    """

    kind: ClassVar[str] = "character"

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        *,
        lowercase: bool = False,
        normalization: str = "nfc",
        min_freq: int = 1,
        max_tokens: int | None = None,
    ) -> CharacterTokenizer:
        """Build the vocabulary from the most frequent characters of the texts.

        Args:
            texts: Train texts.
            lowercase: Whether texts are lower-cased first.
            normalization: As for the class.
            min_freq: Minimum count of a character; rarer characters are unknown.
            max_tokens: Maximum size of the vocabulary, special tokens included.
        """
        empty = cls(SPECIALS, lowercase, normalization)
        tokens = vocabulary_tokens(empty.tokenize_in_pieces(texts), min_freq, max_tokens)
        return cls(tokens, lowercase, normalization)

    def tokenize_normalized(self, texts: Sequence[str]) -> list[list[str]]:
        return [list(text) for text in texts]

    def join(self, tokens: Sequence[str]) -> str:
        # U+FFFD is Unicode's replacement character.
        return "".join("\ufffd" if token == SPECIALS[UNKNOWN_ID] else token for token in tokens)
