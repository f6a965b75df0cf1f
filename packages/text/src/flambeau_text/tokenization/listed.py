"""What tokenizers share that look each token up in a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flambeau.errors import InputError
from flambeau_text.tokenization.tokenizer import UNKNOWN_ID, Tokenizer
from flambeau_text.vocab import SPECIALS, Vocab, build_vocab_from_iterator


class ListedTokenizer(Tokenizer):
    """Looks each token up in a list that begins with the specials.

    Args:
        tokens: The list, specials first.
        lowercase: Whether texts are lower-cased first.

    Raises:
        InputError: The list does not begin with the specials.
    """

    def __init__(self, tokens: Sequence[str], lowercase: bool = False) -> None:
        if tuple(tokens[: len(SPECIALS)]) != SPECIALS:
            raise InputError(
                f"The vocabulary begins with {list(tokens[:4])}, but it must begin with "
                f"{', '.join(SPECIALS)}, in this order."
            )
        self.vocab = Vocab(tokens, default_index=UNKNOWN_ID)
        self.lowercase = lowercase
        # "<eos>" in a text is three signs and a word, not the end of the sentence.
        words = self.vocab.get_stoi()
        self._numbers = {token: n for token, n in words.items() if token not in SPECIALS}

    def __len__(self) -> int:
        return len(self.vocab)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        find = self._numbers.get
        return [[find(token, UNKNOWN_ID) for token in tokens] for tokens in self.split_all(texts)]

    def split(self, text: str) -> list[str]:
        return self.split_all([text])[0]

    def split_all(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of each text."""
        return self.cutter(self.prepared(texts))

    def cutter(self, texts: Sequence[str]) -> list[list[str]]:
        """The tokens of texts that are lower-cased where they should be."""
        raise NotImplementedError(f"{type(self).__name__} must define cutter(texts).")

    def prepared(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts, lower-cased where that was asked for."""
        return [text.lower() for text in texts] if self.lowercase else texts

    def tokens(self, numbers: Iterable[int]) -> list[str]:
        return self.vocab.lookup_tokens(numbers)

    def arguments(self) -> Mapping[str, Any]:
        return {"tokens": self.vocab.get_itos(), "lowercase": self.lowercase}


def counted(
    texts: Iterable[Sequence[str]], min_freq: int, max_tokens: int | None
) -> tuple[list[str], Counter[str]]:
    """The tokens of a vocabulary, specials first, and how often each token was seen."""
    counts: Counter[str] = Counter()
    for tokens in texts:
        counts.update(tokens)
    for special in SPECIALS:
        counts.pop(special, None)
    spread = ([token] * count for token, count in counts.items())
    found = build_vocab_from_iterator(spread, min_freq, SPECIALS, max_tokens=max_tokens)
    return found.get_itos(), counts
