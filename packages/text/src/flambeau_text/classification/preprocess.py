"""``TextPreprocessor``: converts texts to token ids, for training and for prediction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from os import PathLike
from typing import Any, cast

import torch

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import InputError, did_you_mean
from flambeau_text.checked_text import checked_text
from flambeau_text.classification.dataset import TokenRows, token_inputs
from flambeau_text.prediction_items import items_in
from flambeau_text.ragged_rows import RaggedRows
from flambeau_text.text_lines import text_of_file
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json
from flambeau_text.tokenization.encoder_tokenizer import EncoderTokenizer
from flambeau_text.tokenization.tokenization_record import record_of, warn_if_changed


class TextPreprocessor(Preprocessor):
    """The tokenizer of a text classifier, and the limit of the length of texts.

    A text has an end token before its first line and after each line, as in a language model, and
    at most ``max_length`` tokens between the first and the last of them. A tokenizer that reads
    backwards keeps the same part of a longer text, and reads it from its end.

    Args:
        tokenizer: The tokenizer, or its JSON values.
        max_length: Most tokens of a text, without the end tokens around it.
        truncation: What is kept of a longer text: "head" (its beginning) or "head_tail" (half of
            the tokens from each end).
        fields: Names of the fields with the text, or both texts of pairs, in inputs that are
            mappings; empty if the texts had no names.
        n_texts: 1, or 2 for pairs of texts.
        tokenization: The record that an export has from ``record_of``; if the installed packages
            tokenize differently, a warning is given. None makes a new record.

    Attributes:
        tokenizer: The tokenizer.
        max_length: The argument ``max_length``.
        truncation: The argument ``truncation``.
        fields: The argument ``fields``.
        n_texts: The argument ``n_texts``.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer | Mapping[str, Any],
        max_length: int,
        truncation: str = "head",
        fields: Sequence[str] = (),
        n_texts: int = 1,
        tokenization: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = (
            tokenizer_from_json(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
        )
        self.max_length, self.truncation = max_length, truncation
        self.fields, self.n_texts = tuple(fields), n_texts
        if tokenization is not None:
            warn_if_changed(tokenization, [self.tokenizer])
        self._tokenization = dict(tokenization or record_of([self.tokenizer]))

    @property
    def builder(self) -> str:
        return "text_preprocessor"

    def tokens(self, columns: Sequence[Sequence[str]]) -> tuple[TokenRows, int]:
        """Return the tokens of texts, or of both columns of pairs, and the number of cut texts."""
        found = [self._tokens_of(texts) for texts in columns]
        return TokenRows(tuple(RaggedRows(rows) for rows, _ in found)), sum(n for _, n in found)

    def _tokens_of(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        start, end = self.tokenizer.special.start, self.tokenizer.special.end
        documents = [self.tokenizer.parts_of(text) for text in texts]
        encoded = iter(self.tokenizer.encode_batch(list(chain.from_iterable(documents))))
        rows: list[list[int]] = []
        truncated = 0
        for lines in documents:
            row: list[int] = []
            for _ in lines:
                row += (*next(encoded), end)
            row.pop()  # the end token of the last line is added below
            truncated += len(row) > self.max_length
            rows.append([start, *self._kept(row), end])
        return rows, truncated

    def _kept(self, row: list[int]) -> list[int]:
        """Return the tokens of a text that are kept: the same ones in both directions."""
        order = slice(None, None, -1 if self.tokenizer.backward else 1)
        return shortened(row[order], self.max_length, self.truncation)[order]

    def encode(self, items: Sequence[Any]) -> Batch:
        """Encode texts, pairs of texts, or mappings with the fields that have the texts.

        A path is that of a text file. An empty text has only end tokens, and gets the prediction of
        a text without words. If the texts of train had no names, the field of a mapping is "text",
        or "first" and "second" for pairs.

        Raises:
            InputError: An item is neither; the message has its index.
        """
        texts = [self._texts_of(index, item) for index, item in enumerate(items)]
        columns = list(zip(*texts, strict=True)) or [()] * self.n_texts
        found, _ = self.tokens(columns)
        return Batch(token_inputs(found, torch.arange(len(texts))), weight=float(len(texts)))

    def _texts_of(self, index: int, item: Any) -> list[str]:
        where = f"Item {index}"
        if isinstance(item, Mapping):
            fields = cast("Mapping[str, Any]", item)
            names = self._names_in(fields)
            if missing := [name for name in names if name not in fields]:
                hint = did_you_mean(missing[0], map(str, fields))
                raise InputError(f"{where}: there is no field {missing[0]!r} with the text. {hint}")
            return [checked_text(fields[name], f"{where}, field {name!r}") for name in names]
        values = [item] if self.n_texts == 1 else item
        if not isinstance(values, list | tuple) or len(cast("list[Any]", values)) != self.n_texts:
            raise InputError(
                f"{where}: {item!r:.60} is not a pair of texts, which the model reads. Give a "
                "tuple of two."
            )
        read = [text_of_file(each) if isinstance(each, PathLike) else each for each in values]
        return [checked_text(value, where) for value in read]

    def _names_in(self, fields: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the fields with the texts; the usual ones if the texts of train had no names."""
        if self.fields:
            return self.fields
        if self.n_texts > 1:
            return ("first", "second")
        return tuple(fields) if len(fields) == 1 else ("text",)

    def is_single(self, item: Any) -> bool:
        """Return whether an argument of ``predict`` is one input, such as a pair of texts."""
        is_tuple = isinstance(item, tuple)
        if is_tuple and self.n_texts == 2 and len(cast("tuple[Any, ...]", item)) == 2:
            return all(isinstance(each, str) for each in cast("tuple[Any, ...]", item))
        return not isinstance(item, list | tuple)

    def expand(self, item: Any) -> Sequence[Any] | None:
        """Return the inputs in an array, a data set or a frame; see `items_in`."""
        return items_in(item)

    def vocabulary_digest(self) -> str:
        """Return a hash of the tokenizer; weights are valid only with an equal tokenizer."""
        content = json.dumps(self.tokenizer.as_json(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def arguments(self) -> Mapping[str, Any]:
        return {
            "tokenizer": self.tokenizer.as_json(),
            "max_length": self.max_length,
            "truncation": self.truncation,
            "fields": list(self.fields),
            "n_texts": self.n_texts,
            "tokenization": self._tokenization,
        }


class EncoderTextPreprocessor(TextPreprocessor):
    """The tokenizer of a pretrained encoder, and the limit of the length of its rows.

    A text, or a pair of texts, is one row with the special tokens of the model. ``max_length`` is
    the number of all tokens of a row, as in transformers; of a pair the longer text is cut first.

    Raises:
        InputError: ``max_length`` has no room for the texts.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer | Mapping[str, Any],
        max_length: int,
        truncation: str = "head",
        fields: Sequence[str] = (),
        n_texts: int = 1,
        tokenization: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            max_length=max_length,
            truncation=truncation,
            fields=fields,
            n_texts=n_texts,
            tokenization=tokenization,
        )
        self._frame = cast("EncoderTokenizer", self.tokenizer).frame(n_texts)
        if max_length < self._frame.n_tokens + n_texts:
            raise InputError(
                f"max_length={max_length} has no room for a text beside the "
                f"{self._frame.n_tokens} special tokens of a row. Raise it."
            )

    @property
    def builder(self) -> str:
        return "encoder_text_preprocessor"

    def tokens(self, columns: Sequence[Sequence[str]]) -> tuple[TokenRows, int]:
        encoded = [self.tokenizer.encode_batch(texts) for texts in columns]
        room = self.max_length - self._frame.n_tokens
        rows: list[list[int]] = []
        types: list[list[int]] = []
        truncated = 0
        for texts in zip(*encoded, strict=True):
            limits = shares([len(text) for text in texts], room)
            own = [
                shortened(text, limit, self.truncation)
                for text, limit in zip(texts, limits, strict=True)
            ]
            truncated += sum(map(len, own)) < sum(map(len, texts))
            rows.append(self._frame.row(own))
            types.append(self._frame.types([len(text) for text in own]))
        has_types = self._frame.has_types
        return TokenRows((RaggedRows(rows),), RaggedRows(types) if has_types else None), truncated


def shortened(row: list[int], limit: int, truncation: str) -> list[int]:
    """Return at most ``limit`` of the tokens of a text: the first, or as many from each end."""
    if len(row) <= limit:
        return row
    if truncation == "head":
        return row[:limit]
    head = -(-limit // 2)
    return row[:head] + row[len(row) - (limit - head) :]


def shares(lengths: Sequence[int], room: int) -> list[int]:
    """Return how many tokens of each text are kept: the longer text of a pair is cut first."""
    if len(lengths) == 1:
        return [room]
    short, long = sorted(lengths)
    if short + long <= room:
        return list(lengths)
    short = min(short, room // 2)
    kept = [short, room - short]
    return kept if lengths[0] <= lengths[1] else kept[::-1]
