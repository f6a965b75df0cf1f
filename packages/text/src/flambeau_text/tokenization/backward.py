"""``BackwardTokenizer``: the tokens of another tokenizer, from the end of a text to its start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from flambeau_text.tokenization.tokenizer import Tokenizer


class BackwardTokenizer(Tokenizer):
    """Tokens from the end of a text to its start, for a model that reads texts backwards.

    Args:
        inner: The tokenizer, whose vocabulary is used.

    Example:
        >>> from flambeau_text.tokenization.words import WordTokenizer
        >>> words = BackwardTokenizer(WordTokenizer.fit(["a dog runs"]))
        >>> words.tokenize("a dog runs"), words.decode(words.encode("a dog runs"))
        (['runs', 'dog', 'a'], 'a dog runs')
    """

    kind: ClassVar[str] = "backward"
    backward = True

    def __init__(self, inner: Tokenizer) -> None:
        self.inner = inner
        self.normalization, self.special = inner.normalization, inner.special
        self.stop, self.keeps_lines = inner.stop, inner.keeps_lines

    def __len__(self) -> int:
        return len(self.inner)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [ids[::-1] for ids in self.inner.encode_batch(texts)]

    def tokenize(self, text: str) -> list[str]:
        return self.inner.tokenize(text)[::-1]

    def ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        return self.inner.ids_to_tokens(ids)

    def join(self, tokens: Sequence[str]) -> str:
        return self.inner.join(tokens[::-1])

    def normalize(self, text: str) -> str:
        return self.inner.normalize(text)

    def arguments(self) -> Mapping[str, Any]:
        return {"inner": self.inner.as_json()}


def in_direction(tokenizer: Tokenizer, backward: bool) -> Tokenizer:
    """Return the tokenizer, or one of its tokens from the end of a text to its start."""
    return BackwardTokenizer(tokenizer) if backward and not tokenizer.backward else tokenizer
