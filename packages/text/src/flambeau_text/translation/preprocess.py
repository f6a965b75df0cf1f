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

_SHOWN = 60  # characters of a text in a message
_CHECKED = 200  # sources of a part


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
            try:
                item.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"Item {number}: the character {item[error.start]!r} at place {error.start} is "
                    "half of a pair and no text. Read the text as UTF-8."
                ) from None
            fault = None if self.seen is None else self.seen.fault(item)
            if fault is not None:
                raise InputError(
                    f"Item {number}: {_shown(item)} {fault}. Give a source sentence; "
                    "preprocessor.seen = None has it translated all the same."
                )
        rows = self.source.encode_all(items)
        for number, row in enumerate(rows):
            if len(row) > self.max_tokens:
                raise InputError(
                    f"Item {number}: {_shown(items[number])} has {len(row):,} tokens, more than "
                    f"{self.max_tokens:,}: the model saw nothing of that length. Cut it into "
                    "sentences."
                )
        source, mask = source_rows(rows).padded(torch.arange(len(rows)))
        return Batch({SOURCE: source}, masks={SOURCE: mask}, weight=float(len(rows)))

    def check_sources(self, sources: Sequence[str], part: str) -> None:
        """Lets a part pass whose sources are of the kind that the model translates.

        Raises:
            InputError: Most of the first ones are not, as where the two sides are exchanged.
        """
        if self.seen is None:
            return
        some = sources[:_CHECKED]
        found = [(text, fault) for text in some if (fault := self.seen.fault(text))]
        if 2 * len(found) > len(some):
            text, fault = found[0]
            raise InputError(
                f"{len(found)} of the first {len(some)} sources of {part} are none that this model "
                f"translates: {_shown(text)} {fault}. Are the two sides exchanged? "
                "preprocessor.seen = None lets them pass all the same."
            )

    def arguments(self) -> Mapping[str, Any]:
        return {
            "source": self.source.as_json(),
            "target": None if self.target is self.source else self.target.as_json(),
            "max_tokens": self.max_tokens,
            "seen": None if self.seen is None else self.seen.as_json(),
        }


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")


def _tokenizer(given: Tokenizer | Mapping[str, Any]) -> Tokenizer:
    return tokenizer_from_json(given) if isinstance(given, Mapping) else given
