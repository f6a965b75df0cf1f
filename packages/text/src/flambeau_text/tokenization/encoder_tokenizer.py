"""``EncoderTokenizer``: the tokenizer of a pretrained encoder, with the tokens around its texts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, ClassVar, cast

from flambeau.errors import InputError
from flambeau_text.tokenization.fast_tokenizer import FastTokenizer, read_folder
from flambeau_text.tokenization.tokenizer import SpecialIds

_NAMES = ("unk", "pad")


@dataclass(frozen=True)
class Frame:
    """The special tokens around and between the texts of a row, as a pretrained encoder reads them.

    Attributes:
        tokens: Ids before the first text, after each text but the last, and after the last.
        token_types: Their types.
        text_types: The type of the tokens of each text.
    """

    tokens: tuple[tuple[int, ...], ...]
    token_types: tuple[tuple[int, ...], ...]
    text_types: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        """Number of special tokens of a row."""
        return sum(map(len, self.tokens))

    @property
    def has_types(self) -> bool:
        """Whether a token has another type than 0."""
        return any(self.text_types) or any(map(any, self.token_types))

    def row(self, texts: Sequence[Sequence[int]]) -> list[int]:
        """Return the ids of a row with these texts."""
        found = list(self.tokens[0])
        for text, after in zip(texts, self.tokens[1:], strict=True):
            found += (*text, *after)
        return found

    def types(self, lengths: Sequence[int]) -> list[int]:
        """Return the types of the tokens of a row, from the number of tokens of each text."""
        found = list(self.token_types[0])
        for n, kind, after in zip(lengths, self.text_types, self.token_types[1:], strict=True):
            found += (*[kind] * n, *after)
        return found


class EncoderTokenizer(FastTokenizer):
    """The tokens of a pretrained encoder (BERT, RoBERTa, …), stored as ``tokenizer.json``.

    Rows begin and end with the model's special tokens, and pairs of texts share a row:
    ``[CLS] first [SEP] second [SEP]``. Special tokens that are written in a text are encoded as
    text.

    Args:
        model: The content of ``tokenizer.json``.
        tokens: The special tokens by name: "unk" and "pad"; None for one that is missing.

    Raises:
        InputError: The tokenizer adds no special tokens, or lacks one that its settings name.
    """

    kind: ClassVar[str] = "huggingface_encoder"

    def __init__(self, model: Mapping[str, Any], tokens: Mapping[str, str | None]) -> None:
        super().__init__(model, {name: tokens.get(name) for name in _NAMES})
        unknown, padding = map(self.id_of, _NAMES)
        self.unknown = unknown
        row = self.frame(1).row([()])
        if not row:
            raise InputError(
                "The tokenizer adds no special tokens around a text: its tokenizer.json has no "
                "post_processor. An encoder such as BERT was trained with them. Save the tokenizer "
                "with the class of the model, such as BertTokenizer.save_pretrained."
            )
        self.special = SpecialIds(row[0], row[-1], row[-1] if padding is None else padding, ())

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> EncoderTokenizer:
        """Read the tokenizer in the folder of a model; see `read_folder`.

        Raises:
            InputError: A file is missing or damaged, or the tokenizer cannot be used.
            MissingDependencyError: ``tokenizer.json`` is missing, and transformers not installed.
        """
        model, tokens, _ = read_folder(folder, _NAMES)
        return cls(model, tokens)

    def frame(self, n_texts: int) -> Frame:
        """Return the special tokens of rows of single texts (1) or of pairs (2)."""
        return self._frames[n_texts - 1]

    @cached_property
    def _frames(self) -> tuple[Frame, Frame]:
        return self._frame_of("a"), self._frame_of("a", "a")

    def _frame_of(self, *texts: str) -> Frame:
        found = self._tokenizer.encode(*texts)
        entries = zip(found.sequence_ids, found.ids, found.type_ids, strict=True)
        parts = [(at, list(each)) for at, each in groupby(entries, key=lambda entry: entry[0])]
        if [at for at, _ in parts if at is not None] != list(range(len(texts))):
            raise InputError(
                f"The tokenizer does not write {len(texts)} texts of a row one after the other, "
                "which encoders of this kind need."
            )
        around: list[list[tuple[int, int]]] = [[]]
        types: list[int] = []
        for at, entries_of in parts:
            if at is None:
                around[-1] = [(token, kind) for _, token, kind in entries_of]
            else:
                types.append(entries_of[0][2])
                around.append([])
        tokens, kinds = (
            tuple(tuple(entry[which] for entry in each) for each in around) for which in (0, 1)
        )
        return Frame(tokens, kinds, tuple(types))

    def encode_words(self, words: Sequence[str]) -> list[list[int]]:
        """Return the token ids of words, each as it is tokenized in the middle of a sentence."""
        if self._is_byte_level:
            # In a byte-level vocabulary a word is another token with a space before it.
            return self.encode_batch(
                [f" {word}" if word[:1] not in ("", " ") else word for word in words]
            )
        inputs = [[word] for word in words]
        found = self._tokenizer.encode_batch(inputs, is_pretokenized=True, add_special_tokens=False)
        return [each.ids for each in found]

    @cached_property
    def _is_byte_level(self) -> bool:
        steps = _steps(self._model.get("pre_tokenizer"))
        return any(step.get("type") == "ByteLevel" for step in steps)


def _steps(step: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a pre-tokenizer, also those of a sequence."""
    if step is None:
        return
    yield step
    for inner in cast("list[Mapping[str, Any]]", step.get("pretokenizers") or ()):
        yield from _steps(inner)
