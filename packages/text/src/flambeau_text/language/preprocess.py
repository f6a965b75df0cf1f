"""``LanguagePreprocessor``: converts texts to token ids, for training and for prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, cast

import torch

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import InputError
from flambeau_text.checked_text import checked_text
from flambeau_text.language.stream import TOKENS, TokenStream, stream_of
from flambeau_text.language.token_store import encode_in_memory, encode_on_disk
from flambeau_text.prediction_items import items_in
from flambeau_text.text_lines import text_of_file
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json
from flambeau_text.tokenization.tokenization_record import record_of, warn_if_changed


class LanguagePreprocessor(Preprocessor):
    """The tokenizer of a language model; each line of a text ends with an end token.

    Args:
        tokenizer: The tokenizer, or its JSON values.
        tokenization: The record that an export has from ``record_of``; if the installed packages
            tokenize differently, a warning is given. None makes a new record.

    Attributes:
        tokenizer: The tokenizer.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer | Mapping[str, Any],
        tokenization: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer = (
            tokenizer_from_json(tokenizer) if isinstance(tokenizer, Mapping) else tokenizer
        )
        if tokenization is not None:
            warn_if_changed(tokenization, [self.tokenizer])
        self._tokenization = dict(tokenization or record_of([self.tokenizer]))

    @property
    def builder(self) -> str:
        return "language_preprocessor"

    def stream(self, texts: Sequence[str], cache: str = "memory") -> TokenStream:
        """Return the tokens of documents, one after the other.

        Args:
            texts: The documents.
            cache: "memory", or "disk" for a memory-mapped file.
        """
        encode = encode_on_disk if cache == "disk" else encode_in_memory
        return stream_of(*encode(texts, self.tokenizer), texts, self.tokenizer)

    def encode(self, items: Sequence[Any]) -> Batch:
        """Encode prompts, each after the start token, as int64 ``(n, longest)`` with a mask.

        If lines end with end tokens, a prompt that ends with a line feed ends with an end token;
        otherwise the model continues its last line.

        Args:
            items: Texts, or mappings with a text in the field "prompt", as the rows of a table are.

        Raises:
            InputError: An item is not a text, or has NUL characters or unpaired surrogates; the
                message has its index. Or the model reads texts backwards, so it has no
                continuation.
        """
        if self.tokenizer.backward:
            raise InputError(
                "The model reads texts backwards, so it does not continue a prompt. Use a model "
                "that reads forwards; this one starts a classifier: "
                "TextOptions(language_model=FOLDER)."
            )
        rows: list[list[int]] = []
        for index, item in enumerate(items):
            rows.append(self._prompt(prompt_of(item, f"Item {index}")))
        return padded_prompts(rows, self.tokenizer.special.padding)

    def _prompt(self, text: str) -> list[int]:
        special = self.tokenizer.special
        if not text:
            return [special.start]
        parts = self.tokenizer.encode_batch(self.tokenizer.parts_of(text))
        if self.tokenizer.keeps_lines:
            return [special.start, *parts[0]]
        ids = [token for line in parts for token in (special.end, *line)]
        return [*ids, special.end] if text.endswith("\n") else ids

    def expand(self, item: Any) -> Sequence[Any] | None:
        """Return the inputs in an array, a data set or a frame; see `items_in`."""
        return items_in(item)

    def vocabulary_digest(self) -> str:
        """Return a hash of the tokenizer; weights are valid only with an equal tokenizer."""
        content = json.dumps(self.tokenizer.as_json(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def arguments(self) -> Mapping[str, Any]:
        return {"tokenizer": self.tokenizer.as_json(), "tokenization": self._tokenization}


def padded_prompts(rows: Sequence[Sequence[int]], padding: int) -> Batch:
    """Return prompts as a batch, padded at the end, with a mask of their tokens."""
    longest = max(map(len, rows), default=1)
    tokens = torch.full((len(rows), longest), padding)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
    lengths = torch.tensor([len(ids) for ids in rows], dtype=torch.int64)
    mask = torch.arange(longest) < lengths.unsqueeze(1)
    return Batch({TOKENS: tokens}, masks={TOKENS: mask}, weight=float(len(rows)))


def prompt_of(item: Any, where: str) -> str:
    """Return a prompt: a text, that of a file, or the field "prompt" or "text" of a mapping.

    Args:
        item: A text, the path of a file, or a mapping; one with a single field may have any name.
        where: Its place, for messages.

    Raises:
        InputError: It is neither; or its text has NUL characters or unpaired surrogates.
    """
    if isinstance(item, Mapping):
        fields = cast("Mapping[str, Any]", item)
        names = [str(name) for name in fields]
        found = [name for name in ("prompt", "text") if name in names] or names
        if len(found) != 1 and found[:1] != ["prompt"]:
            raise InputError(
                f"{where}: none of the fields {', '.join(names) or '(there are none)'} is named "
                "'prompt'. Give the prompt alone, or in this field."
            )
        item = fields[found[0]]
    return checked_text(text_of_file(item) if isinstance(item, PathLike) else item, where)
