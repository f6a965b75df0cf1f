"""``VocabTokenizer``: the base of tokenizers that look each token up in a vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from flambeau.errors import InputError
from flambeau_text.tokenization.tokenizer import UNKNOWN_ID, Tokenizer
from flambeau_text.vocab import SPECIALS, Vocab, build_vocab_from_iterator

_PIECE = 1_000
"""Texts that are tokenized at once to count their tokens."""


class VocabTokenizer(Tokenizer):
    """A tokenizer with a `Vocab`; a subclass defines ``tokenize_normalized``.

    Args:
        tokens: The vocabulary, special tokens first.
        lowercase: Whether texts are lower-cased first.
        normalization: The Unicode form of texts: "nfc", "nfkc" or "none".

    Raises:
        InputError: The vocabulary does not begin with the special tokens.
    """

    def __init__(
        self, tokens: Sequence[str], lowercase: bool = False, normalization: str = "nfc"
    ) -> None:
        if tuple(tokens[: len(SPECIALS)]) != SPECIALS:
            raise InputError(
                f"The vocabulary begins with {list(tokens[:4])}, but must begin with the special "
                f"tokens {', '.join(SPECIALS)}, in this order."
            )
        self.vocab = Vocab(tokens, default_index=UNKNOWN_ID)
        self.lowercase = lowercase
        self.normalization = normalization
        # "<eos>" written in a text is not the end token.
        ids = self.vocab.get_stoi()
        self._ids = {token: i for token, i in ids.items() if token not in SPECIALS}

    def __len__(self) -> int:
        return len(self.vocab)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        find = self._ids.get
        return [
            [find(token, UNKNOWN_ID) for token in tokens] for tokens in self.tokenize_batch(texts)
        ]

    def tokenize(self, text: str) -> list[str]:
        return self.tokenize_batch([text])[0]

    def tokenize_batch(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the tokens of each text."""
        return self.tokenize_normalized([self.normalize(text) for text in texts])

    def tokenize_in_pieces(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """Yield the tokens of each text; those of a few texts at a time are in memory."""
        remaining = iter(texts)
        while piece := list(islice(remaining, _PIECE)):
            yield from self.tokenize_batch(piece)

    def normalize(self, text: str) -> str:
        found = super().normalize(text)
        return found.lower() if self.lowercase else found

    def tokenize_normalized(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the tokens of texts that are already normalised."""
        raise NotImplementedError(f"{type(self).__name__} must define tokenize_normalized(texts).")

    def ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        return self.vocab.lookup_tokens(ids)

    def arguments(self) -> Mapping[str, Any]:
        return {
            "tokens": self.vocab.get_itos(),
            "lowercase": self.lowercase,
            "normalization": self.normalization,
        }


def vocabulary_tokens(
    texts: Iterable[Sequence[str]],
    min_freq: int,
    max_tokens: int | None,
    specials: Sequence[str] = SPECIALS,
) -> list[str]:
    """Return the tokens of a vocabulary: special tokens, then the most frequent tokens.

    Args:
        texts: The tokens of each text.
        min_freq: Minimum count of a token; rarer tokens are excluded.
        max_tokens: Maximum size, special tokens included; None for no limit.
        specials: The special tokens, those of `SPECIALS` first.
    """
    counts: Counter[str] = Counter()
    for tokens in texts:
        counts.update(tokens)
    for special in specials:
        counts.pop(special, None)
    repeated = ([token] * count for token, count in counts.items())
    found = build_vocab_from_iterator(repeated, min_freq, specials, max_tokens=max_tokens)
    return found.get_itos()
