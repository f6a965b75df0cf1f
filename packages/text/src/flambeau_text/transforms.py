"""Transforms with torchtext's names: from lists of tokens to padded tensors, and ``get_tokenizer``.

Like ``flambeau_text.vocab`` this module imports nothing of flambeau, so that it can be loaded
beside torchtext 0.18 and torch 2.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# The rules of torchtext's "basic_english", in their order.
_BASIC_ENGLISH = (
    (re.compile(r"\'"), " '  "),
    (re.compile(r"\""), ""),
    (re.compile(r"\."), " . "),
    (re.compile(r"<br \/>"), " "),
    (re.compile(r","), " , "),
    (re.compile(r"\("), " ( "),
    (re.compile(r"\)"), " ) "),
    (re.compile(r"\!"), " ! "),
    (re.compile(r"\?"), " ? "),
    (re.compile(r"\;"), " "),
    (re.compile(r"\:"), " "),
    (re.compile(r"\s+"), " "),
)


class VocabTransform(nn.Module):
    """Tokens to numbers.

    Args:
        vocab: A ``Vocab``, or anything with ``lookup_indices``.
    """

    def __init__(self, vocab: Any) -> None:
        super().__init__()
        self.vocab = vocab

    def forward(self, input: Any) -> Any:
        """Of one list of tokens, or of a list of such."""
        if _is_batch(input):
            return [self.vocab.lookup_indices(tokens) for tokens in input]
        return self.vocab.lookup_indices(input)


class ToTensor(nn.Module):
    """Numbers to a tensor; lists of different length need a padding value.

    Args:
        padding_value: What stands after the end of shorter lists; None takes lists of one length.
        dtype: Of the tensor.
    """

    def __init__(self, padding_value: int | None = None, dtype: torch.dtype = torch.long) -> None:
        super().__init__()
        self.padding_value, self.dtype = padding_value, dtype

    def forward(self, input: Any) -> Tensor:
        """``(numbers,)`` of one list, ``(lists, longest)`` of several."""
        if not _is_batch(input) or self.padding_value is None:
            return torch.tensor(input, dtype=self.dtype)
        rows = [torch.tensor(each, dtype=self.dtype) for each in input]
        return nn.utils.rnn.pad_sequence(rows, True, float(self.padding_value))


class Truncate(nn.Module):
    """The first ``max_seq_len`` entries."""

    def __init__(self, max_seq_len: int) -> None:
        super().__init__()
        self.max_seq_len = max_seq_len

    def forward(self, input: Any) -> Any:
        """Of one list, or of each of several."""
        if _is_batch(input):
            return [each[: self.max_seq_len] for each in input]
        return input[: self.max_seq_len]


class AddToken(nn.Module):
    """One token more at the beginning or at the end.

    Args:
        token: What is added: a number or a text, as the lists hold.
        begin: At the beginning, else at the end.
    """

    def __init__(self, token: int | str, begin: bool = True) -> None:
        super().__init__()
        self.token, self.begin = token, begin

    def forward(self, input: Any) -> Any:
        """To one list, or to each of several."""
        if _is_batch(input):
            return [self._with(each) for each in input]
        return self._with(input)

    def _with(self, entries: Sequence[Any]) -> list[Any]:
        return [self.token, *entries] if self.begin else [*entries, self.token]


class PadTransform(nn.Module):
    """A tensor padded at the end of its last axis to ``max_length``.

    Args:
        max_length: Entries afterwards; longer tensors stay as they are.
        pad_value: What stands there.
    """

    def __init__(self, max_length: int, pad_value: int) -> None:
        super().__init__()
        self.max_length, self.pad_value = max_length, float(pad_value)

    def forward(self, x: Tensor) -> Tensor:
        """``(…, max_length)``."""
        missing = self.max_length - x.size(-1)
        return nn.functional.pad(x, (0, missing), value=self.pad_value) if missing > 0 else x


class LabelToIndex(nn.Module):
    """Labels to their numbers.

    Args:
        label_names: In the order of their numbers; or None.
        label_path: A file of a label a line, where no names are given.
        sort_names: Sort them first.

    Raises:
        ValueError: Names and a path are given, or neither.
    """

    def __init__(
        self,
        label_names: Sequence[str] | None = None,
        label_path: str | None = None,
        sort_names: bool = False,
    ) -> None:
        super().__init__()
        if (label_names is None) == (label_path is None):
            raise ValueError("Give label_names or label_path, one of them.")
        if label_names is None:
            with open(str(label_path), encoding="utf-8") as file:
                label_names = [line.strip() for line in file if line.strip()]
        names = sorted(label_names) if sort_names else list(label_names)
        self.label_names = names
        self._numbers = {name: number for number, name in enumerate(names)}

    def forward(self, input: Any) -> Any:
        """Of one label, or of a list of them."""
        if isinstance(input, str):
            return self._numbers[input]
        return [self._numbers[label] for label in input]


class StrToIntTransform(nn.Module):
    """Texts of whole numbers to numbers."""

    def forward(self, input: Any) -> Any:
        """Of one list of texts, or of a list of such."""
        if _is_batch(input):
            return [[int(text) for text in each] for each in input]
        return [int(text) for text in input]


class Sequential(nn.Sequential):
    """Transforms one after the other."""

    def forward(self, input: Any) -> Any:
        """What the last of them gives."""
        for transform in self:
            input = transform(input)
        return input


def basic_english(line: str) -> list[str]:
    """Lower-cased words with punctuation apart.

    >>> basic_english("A dog's ball, isn't it?")
    ['a', 'dog', "'", 's', 'ball', ',', 'isn', "'", 't', 'it', '?']

    Source:
        ``torchtext.data.utils.get_tokenizer("basic_english")`` (0.18), whose tokens it gives.
    """
    line = line.lower()
    for pattern, replacement in _BASIC_ENGLISH:
        line = pattern.sub(replacement, line)
    return line.split()


def get_tokenizer(
    tokenizer: str | Callable[[str], list[str]] | None, language: str = "en"
) -> Callable[[str], list[str]]:
    """A function from a line to its tokens.

    Args:
        tokenizer: None cuts at white space; "basic_english"; "spacy", by a blank pipeline of the
            language (torchtext loads a trained one, whose tokens are the same); "moses", where
            sacremoses is installed; or a function, which is returned.
        language: For "spacy" and "moses"; names such as "en_core_web_sm" count by their language.

    Raises:
        ValueError: There is no such tokenizer, or no such language for it.
        ImportError: "moses" without sacremoses.
    """
    if tokenizer is None:
        return str.split
    if callable(tokenizer):
        return tokenizer
    if tokenizer == "basic_english":
        if language != "en":
            raise ValueError(f"basic_english is for language 'en', not {language!r}.")
        return basic_english
    if tokenizer == "spacy":
        import spacy

        cut = spacy.blank(language.split("_", maxsplit=1)[0]).tokenizer
        return lambda line: [token.text for token in cut(line)]
    if tokenizer == "moses":
        try:
            from sacremoses import MosesTokenizer  # type: ignore[import-not-found]  # optional
        except ImportError as error:
            raise ImportError(
                "The tokenizer 'moses' needs sacremoses: pip install sacremoses. Or take 'spacy'."
            ) from error
        return MosesTokenizer(language).tokenize
    raise ValueError(
        f"There is no tokenizer {tokenizer!r}: give None, 'basic_english', 'spacy', 'moses' or a "
        "function of a line."
    )


def _is_batch(entries: Any) -> bool:
    return bool(entries) and isinstance(entries[0], list | tuple)
