"""``TranslationPreprocessor``: texts to batches of token numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import InputError
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json
from flambeau_text.translation.encoded import SOURCE, source_rows
from flambeau_text.translation.seen import SeenText


class TranslationPreprocessor(Preprocessor):
    """The one path of a sentence into the model, in training, validation and prediction.

    Args:
        source: The source tokenizer, or its JSON values.
        target: The target tokenizer, or its JSON values; None where both sides share one.
        max_tokens: Sources with more tokens are refused.
        seen: What train sources look like; None refuses nothing for its language.

    Attributes:
        source: Tokenizer of the sources.
        target: Tokenizer of the targets; the same object where they share one.
        seen: As given; set it to None to have texts of any language and script translated.
    """

    def __init__(
        self,
        *,
        source: Tokenizer | Mapping[str, Any],
        target: Tokenizer | Mapping[str, Any] | None = None,
        max_tokens: int = 1_024,
        seen: SeenText | Mapping[str, Any] | None = None,
    ) -> None:
        self.source = _tokenizer(source)
        self.target = self.source if target is None else _tokenizer(target)
        self.max_tokens = max_tokens
        self.seen = SeenText.from_json(seen) if isinstance(seen, Mapping) else seen

    @property
    def builder(self) -> str:
        return "translation_preprocessor"

    def encode(self, items: Sequence[Any]) -> Batch:
        """Sources as int64 ``(n, longest)`` with their mask, each ending with the end token.

        Raises:
            InputError: An item is no text, is empty, is too long, or is in a script or a language
                that the model was not trained on; the message has its number.
        """
        for number, item in enumerate(items):
            if not isinstance(item, str):
                raise InputError(
                    f"Item {number}: {item!r:.40} is a {type(item).__name__}; give a text."
                )
            if not item.strip():
                raise InputError(
                    f"Item {number}: the text is empty, so there is nothing to translate. Leave it "
                    "out."
                )
            fault = None if self.seen is None else self.seen.fault(item)
            if fault is not None:
                raise InputError(
                    f"Item {number}: {item!r:.60} {fault}. Give a source sentence; "
                    "preprocessor.seen = None has it translated all the same."
                )
        rows = self.source.encode_all(items)
        for number, row in enumerate(rows):
            if len(row) > self.max_tokens:
                raise InputError(
                    f"Item {number}: {items[number]!r:.40} has {len(row):,} tokens, more than "
                    f"{self.max_tokens:,}: the model saw nothing of that length. Cut it into "
                    "sentences."
                )
        source, mask = source_rows(rows).padded(torch.arange(len(rows)))
        return Batch({SOURCE: source}, masks={SOURCE: mask}, weight=float(len(rows)))

    def arguments(self) -> Mapping[str, Any]:
        return {
            "source": self.source.as_json(),
            "target": None if self.target is self.source else self.target.as_json(),
            "max_tokens": self.max_tokens,
            "seen": None if self.seen is None else self.seen.as_json(),
        }


def _tokenizer(given: Tokenizer | Mapping[str, Any]) -> Tokenizer:
    return tokenizer_from_json(given) if isinstance(given, Mapping) else given
