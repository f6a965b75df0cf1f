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
from flambeau_text.classification.dataset import token_inputs
from flambeau_text.prediction_items import items_in
from flambeau_text.ragged_rows import RaggedRows
from flambeau_text.text_lines import lines_of, text_of_file
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json
from flambeau_text.tokenization.tokenization_record import record_of, warn_if_changed
from flambeau_text.tokenization.tokenizer import END_ID


class TextPreprocessor(Preprocessor):
    """The tokenizer of a text classifier, and the limit of the length of texts.

    A text has an end token before its first line and after each line, as in a language model, and
    at most ``max_length`` tokens between the first and the last of them.

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

    def tokens(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Return the token ids of each text, and the number of texts that were too long."""
        documents = [lines_of(text) for text in texts]
        encoded = iter(self.tokenizer.encode_batch(list(chain.from_iterable(documents))))
        rows: list[list[int]] = []
        truncated = 0
        for lines in documents:
            row: list[int] = []
            for _ in lines:
                row += (*next(encoded), END_ID)
            row.pop()  # the end token of the last line is added below
            truncated += len(row) > self.max_length
            rows.append([END_ID, *self.shortened(row), END_ID])
        return rows, truncated

    def shortened(self, row: list[int]) -> list[int]:
        """Return at most ``max_length`` of the tokens of a text."""
        limit = self.max_length
        if len(row) <= limit:
            return row
        if self.truncation == "head":
            return row[:limit]
        head = -(-limit // 2)
        return row[:head] + row[len(row) - (limit - head) :]

    def encode(self, items: Sequence[Any]) -> Batch:
        """Encode texts, pairs of texts, or mappings with the fields that have the texts.

        A path is that of a text file. An empty text has only end tokens, and gets the prediction of
        a text without words. If the texts of train had no names, the field of a mapping is "text",
        or "first" and "second" for pairs.

        Raises:
            InputError: An item is neither; the message has its index.
        """
        texts = [self._texts_of(index, item) for index, item in enumerate(items)]
        found = [RaggedRows(self.tokens(column)[0]) for column in zip(*texts, strict=True)]
        found = found or [RaggedRows([])] * self.n_texts
        rows = torch.arange(len(texts))
        return Batch(token_inputs(found, rows), weight=float(len(texts)))

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
