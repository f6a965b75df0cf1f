"""``Vocab``: maps tokens to indices and back, with the methods of torchtext's ``Vocab``.

This module imports neither flambeau nor torch, so that it can be loaded beside torchtext 0.18 and
torch 2.3 (see ``flambeau_text.interop.torchtext``). It therefore raises Python's built-in
exceptions, not those of ``flambeau.errors``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

UNKNOWN, PADDING, BEGIN, END = "<unk>", "<pad>", "<bos>", "<eos>"
SPECIALS = (UNKNOWN, PADDING, BEGIN, END)
"""The special tokens of flambeau's vocabularies, with indices 0 to 3."""


class Vocab:
    """A list of tokens; a token's index is its position in the list.

    Args:
        tokens: The tokens in the order of their indices, without duplicates.
        default_index: Index of every token that is not in the vocabulary; with None such a token
            raises an error, as in torchtext.

    Raises:
        ValueError: A token occurs twice.

    Example:
        >>> words = Vocab(["<unk>", "the", "dog"], default_index=0)
        >>> words(["the", "cat"]), words.lookup_tokens([2, 0])
        ([1, 0], ['dog', '<unk>'])

    Source:
        The methods are those of ``torchtext.vocab.Vocab`` (0.18), which is implemented in C++.
    """

    def __init__(self, tokens: Iterable[str], default_index: int | None = None) -> None:
        self._tokens = list(tokens)
        self._indices = {token: index for index, token in enumerate(self._tokens)}
        if len(self._indices) < len(self._tokens):
            twice = next(token for token, n in Counter(self._tokens).items() if n > 1)
            raise ValueError(f"The token {twice!r} occurs twice. Give each token once.")
        self._default: int | None = None
        self.set_default_index(default_index)

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._indices

    def __iter__(self) -> Iterator[str]:
        return iter(self._tokens)

    def __getitem__(self, token: str) -> int:
        if not isinstance(token, str):
            raise TypeError(
                f"vocab[…] takes a token, but {token!r} is of type {type(token).__name__}. For the "
                "token at an index use vocab.lookup_token(index)."
            )
        index = self._indices.get(token, self._default)
        if index is None:
            raise RuntimeError(
                f"The token {token!r} is not in the vocabulary of {len(self):,} tokens, and no "
                "default index is set. Set one for unknown tokens: vocab.set_default_index(0)."
            )
        return index

    def __call__(self, tokens: Iterable[str]) -> list[int]:
        """Return the index of each token, as ``lookup_indices`` does."""
        return self.lookup_indices(tokens)

    def __repr__(self) -> str:
        return f"Vocab({len(self):,} tokens, default_index={self._default})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocab):
            return NotImplemented
        return self._tokens == other._tokens and self._default == other._default

    __hash__ = None  # type: ignore[assignment]  # it is mutable

    def lookup_indices(self, tokens: Iterable[str]) -> list[int]:
        """Return the index of each token.

        Raises:
            RuntimeError: A token is unknown and no default index is set.
        """
        indices, default = self._indices, self._default
        if default is None:
            return [self[token] for token in tokens]
        return [indices.get(token, default) for token in tokens]

    def lookup_token(self, index: int) -> str:
        """Return the token at an index.

        Raises:
            RuntimeError: The index does not exist.
        """
        if not 0 <= index < len(self._tokens):
            raise RuntimeError(
                f"The index {index} does not exist: the vocabulary has the indices 0 to "
                f"{len(self) - 1}."
            )
        return self._tokens[index]

    def lookup_tokens(self, indices: Iterable[int]) -> list[str]:
        """Return the token at each index.

        Raises:
            RuntimeError: An index does not exist.
        """
        return [self.lookup_token(index) for index in indices]

    def get_itos(self) -> list[str]:
        """Return all tokens in the order of their indices."""
        return list(self._tokens)

    def get_stoi(self) -> dict[str, int]:
        """Return a dictionary from each token to its index."""
        return dict(self._indices)

    def set_default_index(self, index: int | None) -> None:
        """Set the index of unknown tokens; with None an unknown token raises an error.

        Raises:
            ValueError: The index is negative.
        """
        if index is not None and index < 0:
            raise ValueError(f"The default index must be at least 0, not {index}.")
        self._default = index

    def get_default_index(self) -> int | None:
        """Return the index of unknown tokens, or None."""
        return self._default

    def insert_token(self, token: str, index: int) -> None:
        """Insert a token at ``index``; the indices of the tokens from there on increase by one.

        Raises:
            RuntimeError: The token is already in the vocabulary, or the index does not exist.
        """
        if not 0 <= index <= len(self):
            raise RuntimeError(
                f"A token cannot be inserted at index {index}: the index must be between 0 and "
                f"{len(self)}."
            )
        if token in self:
            raise RuntimeError(
                f"The token {token!r} is already in the vocabulary, at index {self[token]}."
            )
        self._tokens.insert(index, token)
        self._indices = {each: at for at, each in enumerate(self._tokens)}

    def append_token(self, token: str) -> None:
        """Add a token at the end.

        Raises:
            RuntimeError: The token is already in the vocabulary.
        """
        self.insert_token(token, len(self))


def vocab(
    ordered_dict: Mapping[str, int],
    min_freq: int = 1,
    specials: Sequence[str] | None = None,
    special_first: bool = True,
) -> Vocab:
    """Build a vocabulary from token counts; the tokens keep the order of the counts.

    Args:
        ordered_dict: Count of each token.
        min_freq: Minimum count of a token; rarer tokens are excluded, except special tokens.
        specials: Special tokens, in this order.
        special_first: True places the special tokens first, False last.

    Source:
        ``torchtext.vocab.vocab`` (0.18); the indices are equal to torchtext's.
    """
    # torchtext treats None as no special tokens, and removes special tokens from the counts.
    wanted = list(specials or ())
    tokens = [
        token for token, count in ordered_dict.items() if count >= min_freq and token not in wanted
    ]
    return Vocab([*wanted, *tokens] if special_first else [*tokens, *wanted])


def build_vocab_from_iterator(
    iterator: Iterable[Iterable[str]],
    min_freq: int = 1,
    specials: Sequence[str] | None = None,
    special_first: bool = True,
    max_tokens: int | None = None,
) -> Vocab:
    """Build a vocabulary from lists of tokens, most frequent first, ties in alphabetical order.

    Args:
        iterator: Yields lists of tokens.
        min_freq: Minimum count of a token; rarer tokens are excluded.
        specials: Special tokens, in this order.
        special_first: True places the special tokens first, False last.
        max_tokens: Maximum size, special tokens included.

    Raises:
        ValueError: ``max_tokens`` is not larger than the number of special tokens.

    Example:
        >>> build_vocab_from_iterator([["b", "a", "b"], ["c"]], specials=["<unk>"]).get_itos()
        ['<unk>', 'b', 'a', 'c']

    Source:
        ``torchtext.vocab.build_vocab_from_iterator`` (0.18); the indices are equal to torchtext's.
    """
    counts: Counter[str] = Counter()
    for tokens in iterator:
        counts.update(tokens)
    n_specials = len(specials or ())
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    if max_tokens is not None:
        if n_specials >= max_tokens:
            raise ValueError(
                f"max_tokens is {max_tokens} and includes {n_specials} special tokens, so there is "
                "no room for other tokens. Give a larger max_tokens."
            )
        ordered = ordered[: max_tokens - n_specials]
    return vocab(dict(ordered), min_freq, specials, special_first)
