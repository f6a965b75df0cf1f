"""``Vocab``: tokens and their numbers, with the names and the order that torchtext users know.

Plain Python, a list and a dictionary. This module imports nothing of flambeau and no new torch, so
that it can be loaded beside torchtext 0.18 and torch 2.3 (see ``flambeau_text.interop.torchtext``);
its errors are therefore Python's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

UNKNOWN, PADDING, BEGIN, END = "<unk>", "<pad>", "<bos>", "<eos>"
SPECIALS = (UNKNOWN, PADDING, BEGIN, END)
"""What flambeau's own vocabularies begin with, in this order: their numbers are 0 to 3."""


class Vocab:
    """A list of tokens, each of which has its place as its number.

    Args:
        tokens: In the order of their numbers, each once.
        default_index: The number of every token that is not in it; None raises for such tokens, as
            torchtext does.

    Raises:
        ValueError: A token is there twice.

    Example:
        >>> words = Vocab(["<unk>", "the", "dog"], default_index=0)
        >>> words(["the", "cat"]), words.lookup_tokens([2, 0])
        ([1, 0], ['dog', '<unk>'])

    Source:
        The methods are those of ``torchtext.vocab.Vocab`` (0.18), which keeps them in C++.
    """

    def __init__(self, tokens: Iterable[str], default_index: int | None = None) -> None:
        self._tokens = list(tokens)
        self._numbers = {token: number for number, token in enumerate(self._tokens)}
        if len(self._numbers) < len(self._tokens):
            twice = next(token for token, n in Counter(self._tokens).items() if n > 1)
            raise ValueError(f"The token {twice!r} is in the vocabulary twice. Give each once.")
        self._default: int | None = None
        self.set_default_index(default_index)

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self._tokens)

    def __getitem__(self, token: str) -> int:
        if not isinstance(token, str):
            raise TypeError(
                f"{token!r} is a {type(token).__name__} and no token. The token of a number is "
                "vocab.lookup_token(number)."
            )
        number = self._numbers.get(token, self._default)
        if number is None:
            raise RuntimeError(
                f"The token {token!r} is not in the vocabulary of {len(self):,}, and there is no "
                "default index. Give one for unknown tokens: vocab.set_default_index(0)."
            )
        return number

    def __call__(self, tokens: Iterable[str]) -> list[int]:
        """The same as ``lookup_indices``."""
        return self.lookup_indices(tokens)

    def __repr__(self) -> str:
        return f"Vocab({len(self):,} tokens, default_index={self._default})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocab):
            return NotImplemented
        return self._tokens == other._tokens and self._default == other._default

    __hash__ = None  # type: ignore[assignment]  # it can be changed

    def lookup_indices(self, tokens: Iterable[str]) -> list[int]:
        """The number of each token.

        Raises:
            RuntimeError: One is unknown and there is no default index.
        """
        numbers, default = self._numbers, self._default
        if default is None:
            return [self[token] for token in tokens]
        return [numbers.get(token, default) for token in tokens]

    def lookup_token(self, index: int) -> str:
        """The token of a number.

        Raises:
            RuntimeError: No token has it.
        """
        if not 0 <= index < len(self._tokens):
            raise RuntimeError(
                f"No token has the number {index}: the vocabulary has 0 to {len(self) - 1}."
            )
        return self._tokens[index]

    def lookup_tokens(self, indices: Iterable[int]) -> list[str]:
        """The token of each number.

        Raises:
            RuntimeError: No token has one of them.
        """
        return [self.lookup_token(index) for index in indices]

    def get_itos(self) -> list[str]:
        """All tokens in the order of their numbers."""
        return list(self._tokens)

    def get_stoi(self) -> dict[str, int]:
        """Number by token."""
        return dict(self._numbers)

    def set_default_index(self, index: int | None) -> None:
        """The number that unknown tokens get; None raises for them.

        Raises:
            ValueError: The number is negative.
        """
        if index is not None and index < 0:
            raise ValueError(f"The default index is {index}, but numbers begin at 0.")
        self._default = index

    def get_default_index(self) -> int | None:
        """The number that unknown tokens get, or None."""
        return self._default

    def insert_token(self, token: str, index: int) -> None:
        """Puts a token in at ``index``; those from there on move by one.

        Raises:
            RuntimeError: It is there already, or the place does not exist.
        """
        if not 0 <= index <= len(self):
            raise RuntimeError(
                f"A token cannot be put in at {index}: the vocabulary has the places 0 to "
                f"{len(self)}."
            )
        if token in self:
            raise RuntimeError(f"The token {token!r} is in already, at {self[token]}.")
        self._tokens.insert(index, token)
        self._numbers = {each: number for number, each in enumerate(self._tokens)}

    def append_token(self, token: str) -> None:
        """Puts a token in at the end.

        Raises:
            RuntimeError: It is there already.
        """
        self.insert_token(token, len(self))


def vocab(
    ordered_dict: Mapping[str, int],
    min_freq: int = 1,
    specials: Sequence[str] | None = None,
    special_first: bool = True,
) -> Vocab:
    """A vocabulary from counts, in the order in which they are given.

    Args:
        ordered_dict: Count by token; the order is kept.
        min_freq: Tokens that are rarer are left out; specials never are.
        specials: Put in beside them, in this order.
        special_first: Before the others, or after them.

    Source:
        ``torchtext.vocab.vocab`` (0.18), whose numbers it gives.
    """
    # torchtext counts None as no specials, and takes specials out of the counts.
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
    """A vocabulary of what is most frequent, ties in alphabetical order.

    Args:
        iterator: Gives lists of tokens.
        min_freq: Tokens that are rarer are left out.
        specials: Put in beside them, in this order.
        special_first: Before the others, or after them.
        max_tokens: The most that it holds, specials included.

    Raises:
        ValueError: ``max_tokens`` leaves no room beside the specials.

    Example:
        >>> build_vocab_from_iterator([["b", "a", "b"], ["c"]], specials=["<unk>"]).get_itos()
        ['<unk>', 'b', 'a', 'c']

    Source:
        ``torchtext.vocab.build_vocab_from_iterator`` (0.18), whose numbers it gives.
    """
    counts: Counter[str] = Counter()
    for tokens in iterator:
        counts.update(tokens)
    n_specials = len(specials or ())
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    if max_tokens is not None:
        if n_specials >= max_tokens:
            raise ValueError(
                f"max_tokens is {max_tokens}, which leaves no room beside {n_specials} specials."
            )
        ordered = ordered[: max_tokens - n_specials]
    return vocab(dict(ordered), min_freq, specials, special_first)
