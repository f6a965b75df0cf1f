"""``TranslationPreprocessor``: converts texts to batches of token ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import InputError
from flambeau_text.tokenization import Tokenizer, tokenizer_from_json
from flambeau_text.tokenization.normalization import is_blank
from flambeau_text.tokenization.tokenization_record import record_of, warn_if_changed
from flambeau_text.translation.dataset import SOURCE, SOURCE_TOKENS, source_rows
from flambeau_text.translation.language_guard import LanguageGuard

_SHOWN = 60  # characters of a text in a message
_CHECKED = 200  # sources of a part


class TranslationPreprocessor(Preprocessor):
    """The tokenizers of sources and targets, used in training, validation and prediction.

    Args:
        source: The source tokenizer, or its JSON values.
        target: The target tokenizer, or its JSON values; None if both sides share one.
        max_tokens: Maximum number of tokens of a source; longer sources are refused.
        language_guard: The check that refuses texts in another script or language than the train
            sources, or its JSON values; None accepts all texts.
        tokenization: The record that an export has from `record_of`; if the installed packages
            tokenize differently, a warning is given. None makes a new record.

    Attributes:
        source: Tokenizer of the sources.
        target: Tokenizer of the targets; the same object if both sides share one.
        max_tokens: The argument ``max_tokens``.
        language_guard: The argument ``language_guard``; set it to None to translate texts of any
            language and script.
    """

    def __init__(
        self,
        *,
        source: Tokenizer | Mapping[str, Any],
        target: Tokenizer | Mapping[str, Any] | None = None,
        max_tokens: int = 1_024,
        language_guard: LanguageGuard | Mapping[str, Any] | None = None,
        tokenization: Mapping[str, Any] | None = None,
    ) -> None:
        self.source = _tokenizer(source)
        self.target = self.source if target is None else _tokenizer(target)
        self.max_tokens = max_tokens
        self.language_guard = (
            LanguageGuard.from_json(language_guard)
            if isinstance(language_guard, Mapping)
            else language_guard
        )
        both = self.source, self.target
        if tokenization is not None:
            warn_if_changed(tokenization, both)
        self._tokenization = dict(tokenization or record_of(both))

    @property
    def builder(self) -> str:
        return "translation_preprocessor"

    def encode(self, items: Sequence[Any]) -> Batch:
        """Encode sources, each with an end token, as int64 ``(n, longest)`` with a mask.

        Raises:
            InputError: An item is not a text, is empty, is too long, or is in a script or language
                other than that of the train sources; the message has its index.
        """
        for index, item in enumerate(items):
            self._check_text(index, item)
        items = [self.source.normalize(item) for item in items]
        rows = self.source.encode_batch(items)
        for index, row in enumerate(rows):
            if len(row) > self.max_tokens:
                raise InputError(
                    f"Item {index}: {_shown(items[index])} has {len(row):,} tokens, more than the "
                    f"maximum of {self.max_tokens:,}; the model was not trained on texts of this "
                    "length. Split it into sentences."
                )
        source, mask = source_rows(rows).padded(torch.arange(len(rows)))
        return Batch(
            {SOURCE: source},
            masks={SOURCE: mask},
            weight=float(len(rows)),
            # Tokenized again only where tokens are asked for.
            extras={SOURCE_TOKENS: [partial(self.source.tokenize, item) for item in items]},
        )

    def _check_text(self, index: int, item: Any) -> None:
        if not isinstance(item, str):
            raise InputError(
                f"Item {index}: {item!r:.40} is of type {type(item).__name__}. Give a string."
            )
        if is_blank(item):
            raise InputError(f"Item {index}: the text is empty. Leave it out.")
        try:
            item.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"Item {index}: the character {item[error.start]!r} at index {error.start} is an "
                "unpaired surrogate and not valid text. Decode the text as UTF-8."
            ) from None
        if "\0" in item:
            raise InputError(
                f"Item {index}: {_shown(item)} has NUL characters: probably UTF-16 text that was "
                "read as UTF-8. Decode it as UTF-16."
            )
        guard = self.language_guard
        problem = None if guard is None else guard.problem(self.source.normalize(item))
        if problem is not None:
            raise InputError(
                f"Item {index}: {_shown(item)} {problem}. Give a source sentence, or disable this "
                "check with preprocessor.language_guard = None."
            )

    def check_sources(self, sources: Sequence[str], part: str) -> None:
        """Check that the sources of a part are in the language of the train sources.

        Raises:
            InputError: Most of the first sources are in another language, for example because the
                two sides are swapped.
        """
        if self.language_guard is None:
            return
        some = sources[:_CHECKED]
        normal = [self.source.normalize(text) for text in some]
        found = [(t, problem) for t in normal if (problem := self.language_guard.problem(t))]
        if 2 * len(found) > len(some):
            text, problem = found[0]
            raise InputError(
                f"{len(found)} of the first {len(some)} sources of {part} are not in the model's "
                f"source language: {_shown(text)} {problem}. Are the two sides swapped? To disable "
                "this check, set preprocessor.language_guard = None."
            )

    def vocabulary_digest(self) -> str:
        """Return a hash of both tokenizers; weights are valid only with equal tokenizers."""
        content = [self.source.as_json(), self.target.as_json()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def arguments(self) -> Mapping[str, Any]:
        guard = self.language_guard
        return {
            "source": self.source.as_json(),
            "target": None if self.target is self.source else self.target.as_json(),
            "max_tokens": self.max_tokens,
            "language_guard": None if guard is None else guard.as_json(),
            "tokenization": self._tokenization,
        }


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")


def _tokenizer(given: Tokenizer | Mapping[str, Any]) -> Tokenizer:
    return tokenizer_from_json(given) if isinstance(given, Mapping) else given
