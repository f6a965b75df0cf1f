"""``TextPreprocessor``: converts texts to token ids, for training and for prediction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast

import torch

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import InputError, did_you_mean
from flambeau_text.checked_text import checked_text
from flambeau_text.classification.dataset import token_inputs
from flambeau_text.ragged_rows import RaggedRows
from flambeau_text.text_lines import lines_of
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
        field: Name of the field with the text in inputs that are mappings; None accepts only texts.
        tokenization: The record that an export has from ``record_of``; if the installed packages
            tokenize differently, a warning is given. None makes a new record.

    Attributes:
        tokenizer: The tokenizer.
        max_length: The argument ``max_length``.
        truncation: The argument ``truncation``.
        field: The argument ``field``.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer | Mapping[str, Any],
        max_length: int,
        truncation: str = "head",
        field: str | None = None,
        tokenization: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = (
            tokenizer_from_json(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
        )
        self.max_length, self.truncation, self.field = max_length, truncation, field
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
        """Encode texts, or mappings with the field that has the text.

        An empty text has only end tokens, and gets the prediction of a text without words.

        Raises:
            InputError: An item is neither; the message has its index.
        """
        texts = [self._text_of(index, item) for index, item in enumerate(items)]
        rows, _ = self.tokens(texts)
        found = RaggedRows(rows)
        return Batch(token_inputs(found, torch.arange(len(rows))), weight=float(len(rows)))

    def _text_of(self, index: int, item: Any) -> str:
        where = f"Item {index}"
        if isinstance(item, Mapping):
            fields = cast("Mapping[str, Any]", item)
            if self.field is None or self.field not in fields:
                wanted = self.field or "text"
                hint = did_you_mean(wanted, map(str, fields))
                raise InputError(f"{where} has no field {wanted!r} with the text. {hint}")
            item = fields[self.field]
            where = f"{where}, field {self.field!r}"
        return checked_text(item, where)

    def vocabulary_digest(self) -> str:
        """Return a hash of the tokenizer; weights are valid only with an equal tokenizer."""
        content = json.dumps(self.tokenizer.as_json(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def arguments(self) -> Mapping[str, Any]:
        return {
            "tokenizer": self.tokenizer.as_json(),
            "max_length": self.max_length,
            "truncation": self.truncation,
            "field": self.field,
            "tokenization": self._tokenization,
        }
