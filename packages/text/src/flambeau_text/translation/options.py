"""How sentence pairs are read: choices that go with any way of building ``TranslationData``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from flambeau.errors import InputError

TOKENIZERS = ("bpe", "unigram", "word", "character")


@dataclass(frozen=True)
class TranslationOptions:
    """Choices about the pairs; what the data's builder takes directly replaces what is here.

    Attributes:
        source_language: A code such as "en"; says which of spaCy's rules cut words, and stands in
            reports. None where it is not known.
        target_language: Likewise.
        tokenizer: "bpe", "unigram", "word" or "character"; None lets the plan choose.
        vocab_size: Tokens in a vocabulary; None lets the plan choose.
        shared_vocab: One vocabulary for both sides; None lets the plan choose.
        lowercase: Whether both sides are lower-cased; answers are then in lower case.
        max_words: A pair with more words on a side is unusable.
        max_characters: A pair with more characters on a side is unusable: languages without spaces
            have few words, however long they are.
        max_ratio: A pair with so many times more words on one side than on the other is unusable;
            sentences of up to five words are let pass.
        unusable: "skip" leaves such pairs and those with an empty side out, and counts them;
            "raise" ends with their lines.

    Raises:
        InputError: A value is none of those above.
    """

    source_language: str | None = None
    target_language: str | None = None
    tokenizer: str | None = None
    vocab_size: int | None = None
    shared_vocab: bool | None = None
    lowercase: bool = False
    max_words: int = 150
    max_characters: int = 2_000
    max_ratio: float = 9.0
    unusable: Literal["skip", "raise"] = "skip"

    def __post_init__(self) -> None:
        if self.tokenizer not in (None, *TOKENIZERS):
            raise InputError(f"tokenizer={self.tokenizer!r} is none of {', '.join(TOKENIZERS)}.")
        if self.unusable not in ("skip", "raise"):
            raise InputError(f"unusable={self.unusable!r} is neither 'skip' nor 'raise'.")
        for name in ("vocab_size", "max_words", "max_characters"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise InputError(f"{name} is a whole number, at least 1, not {value!r}.")
        if not self.max_ratio > 1:
            raise InputError(f"max_ratio is a factor above 1, not {self.max_ratio!r}.")

    def with_given(self, given: Mapping[str, Any]) -> TranslationOptions:
        """These options with every value of ``given`` that is not None in place."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})
