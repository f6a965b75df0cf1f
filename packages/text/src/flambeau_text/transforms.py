"""The transforms of torchtext, from lists of tokens to padded tensors, and ``get_tokenizer``.

Like ``flambeau_text.vocab`` this module does not import flambeau, so that it can be loaded beside
torchtext 0.18 and torch 2.3. Each transform takes one list or a batch, which is a list of lists.
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
    """Convert tokens to their indices.

    Args:
        vocab: A ``Vocab``, or any object with a method ``lookup_indices``.
    """

    def __init__(self, vocab: Any) -> None:
        super().__init__()
        self.vocab = vocab

    def forward(self, input: Any) -> Any:
        """Return the indices of one token list or of each token list of a batch."""
        if _is_batch(input):
            return [self.vocab.lookup_indices(tokens) for tokens in input]
        return self.vocab.lookup_indices(input)


class ToTensor(nn.Module):
    """Convert lists of numbers to a tensor.

    Args:
        padding_value: Value appended to shorter lists; with None all lists must be equally long.
        dtype: The tensor's dtype.
    """

    def __init__(self, padding_value: int | None = None, dtype: torch.dtype = torch.long) -> None:
        super().__init__()
        self.padding_value, self.dtype = padding_value, dtype

    def forward(self, input: Any) -> Tensor:
        """Return a tensor ``(length,)`` for one list, ``(batch, longest)`` for a batch."""
        if not _is_batch(input) or self.padding_value is None:
            return torch.tensor(input, dtype=self.dtype)
        rows = [torch.tensor(each, dtype=self.dtype) for each in input]
        return nn.utils.rnn.pad_sequence(rows, True, float(self.padding_value))


class Truncate(nn.Module):
    """Keep the first ``max_seq_len`` entries of a list."""

    def __init__(self, max_seq_len: int) -> None:
        super().__init__()
        self.max_seq_len = max_seq_len

    def forward(self, input: Any) -> Any:
        """Truncate one list or each list of a batch."""
        if _is_batch(input):
            return [each[: self.max_seq_len] for each in input]
        return input[: self.max_seq_len]


class AddToken(nn.Module):
    """Add one token at the beginning or at the end of a list.

    Args:
        token: The token, or its index if the lists hold indices.
        begin: True adds it at the beginning, False at the end.
    """

    def __init__(self, token: int | str, begin: bool = True) -> None:
        super().__init__()
        self.token, self.begin = token, begin

    def forward(self, input: Any) -> Any:
        """Add the token to one list or to each list of a batch."""
        if _is_batch(input):
            return [self._with(each) for each in input]
        return self._with(input)

    def _with(self, entries: Sequence[Any]) -> list[Any]:
        return [self.token, *entries] if self.begin else [*entries, self.token]


class PadTransform(nn.Module):
    """Pad a tensor at the end of its last axis to ``max_length``.

    Args:
        max_length: Size of the last axis after padding; longer tensors are returned unchanged.
        pad_value: The padding value.
    """

    def __init__(self, max_length: int, pad_value: int) -> None:
        super().__init__()
        self.max_length, self.pad_value = max_length, float(pad_value)

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor ``(…, max_length)``."""
        missing = self.max_length - x.size(-1)
        return nn.functional.pad(x, (0, missing), value=self.pad_value) if missing > 0 else x


class LabelToIndex(nn.Module):
    """Convert labels to their indices.

    Args:
        label_names: The labels in the order of their indices.
        label_path: A file with one label per line, in place of ``label_names``.
        sort_names: Whether to sort the labels before they are numbered.

    Raises:
        ValueError: Both ``label_names`` and ``label_path`` are given, or neither.
    """

    def __init__(
        self,
        label_names: Sequence[str] | None = None,
        label_path: str | None = None,
        sort_names: bool = False,
    ) -> None:
        super().__init__()
        if (label_names is None) == (label_path is None):
            raise ValueError("Give exactly one of label_names and label_path.")
        if label_names is None:
            with open(str(label_path), encoding="utf-8") as file:
                label_names = [line.strip() for line in file if line.strip()]
        names = sorted(label_names) if sort_names else list(label_names)
        self.label_names = names
        self._indices = {name: index for index, name in enumerate(names)}

    def forward(self, input: Any) -> Any:
        """Return the index of one label or of each label of a list."""
        if isinstance(input, str):
            return self._indices[input]
        return [self._indices[label] for label in input]


class StrToIntTransform(nn.Module):
    """Convert strings of digits to integers."""

    def forward(self, input: Any) -> Any:
        """Convert one list of strings or each list of a batch."""
        if _is_batch(input):
            return [[int(text) for text in each] for each in input]
        return [int(text) for text in input]


class Sequential(nn.Sequential):
    """Apply transforms one after the other."""

    def forward(self, input: Any) -> Any:
        """Apply the transforms in order and return the result."""
        for transform in self:
            input = transform(input)
        return input


def basic_english(line: str) -> list[str]:
    """Lower-case a line and split it into words and punctuation.

    >>> basic_english("A dog's ball, isn't it?")
    ['a', 'dog', "'", 's', 'ball', ',', 'isn', "'", 't', 'it', '?']

    Source:
        ``torchtext.data.utils.get_tokenizer("basic_english")`` (0.18); the tokens are equal to
        torchtext's.
    """
    line = line.lower()
    for pattern, replacement in _BASIC_ENGLISH:
        line = pattern.sub(replacement, line)
    return line.split()


def get_tokenizer(
    tokenizer: str | Callable[[str], list[str]] | None, language: str = "en"
) -> Callable[[str], list[str]]:
    """Return a function that splits a line into tokens.

    Args:
        tokenizer: None splits at white space; "basic_english" is `basic_english`; "spacy" uses
            spaCy's blank pipeline for the language (torchtext loads a trained pipeline, which gives
            the same tokens); "moses" uses the package sacremoses; a function is returned unchanged.
        language: Language code for "spacy" and "moses". For "spacy" also the name of a pipeline
            such as "en_core_web_sm", of which only the code "en" is used.

    Raises:
        ValueError: The tokenizer is unknown, or does not support the language.
        ImportError: The tokenizer is "moses", but sacremoses is not installed.
    """
    if tokenizer is None:
        return str.split
    if callable(tokenizer):
        return tokenizer
    if tokenizer == "basic_english":
        if language != "en":
            raise ValueError(f"basic_english supports the language 'en', not {language!r}.")
        return basic_english
    if tokenizer == "spacy":
        import spacy

        split = spacy.blank(language.split("_", maxsplit=1)[0]).tokenizer
        return lambda line: [token.text for token in split(line)]
    if tokenizer == "moses":
        try:
            from sacremoses import MosesTokenizer  # type: ignore[import-not-found]  # optional
        except ImportError as error:
            raise ImportError(
                "The tokenizer 'moses' needs sacremoses: pip install sacremoses. Or use 'spacy'."
            ) from error
        return MosesTokenizer(language).tokenize
    raise ValueError(
        f"Unknown tokenizer {tokenizer!r}. Use None, 'basic_english', 'spacy', 'moses' or a "
        "function."
    )


def _is_batch(entries: Any) -> bool:
    return bool(entries) and isinstance(entries[0], list | tuple)
