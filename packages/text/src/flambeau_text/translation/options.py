"""``TranslationOptions``: how sentence pairs are tokenized and filtered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from flambeau.artefact.read_like import filled_like, read_record, reading_options
from flambeau.errors import InputError, explains_arguments
from flambeau.plan import Plan
from flambeau_text.tokenization import Tokenizer, TokenizerLike, tokenizer_from_json
from flambeau_text.tokenization.fit import TOKENIZERS
from flambeau_text.tokenization.normalization import FORMS
from flambeau_text.translation.given_tokenizers import both_sides

_PLANNED = ("tokenizer", "vocab_size", "shared_vocab", "normalization")


@explains_arguments()
@dataclass(frozen=True)
class TranslationOptions:
    """How sentence pairs are tokenized and filtered, for the constructors of ``TranslationData``.

    Attributes:
        source_language: A code such as "en", which selects spaCy's rules for words and appears in
            reports; None if unknown.
        target_language: Language of the targets, in the same form.
        tokenizer: "bpe", "unigram", "word" or "character", fitted on train; None lets the plan
            choose. Or a fitted tokenizer, or an object of a registered class (`TokenizerLike`), for
            both sides; or a pair of them, for source and target.
        vocab_size: Size of a vocabulary; None lets the plan choose.
        shared_vocab: Whether both sides share one vocabulary; None lets the plan choose.
        lowercase: Lower-case both sides; translations are then lower-case. None is False.
        normalization: Unicode form of both sides, of the texts to translate and of the references
            in scores: "nfc", "nfkc" (also full-width letters, ligatures, …) or "none"; None lets
            the plan choose.
        max_words: Maximum number of words on either side of a pair. In Chinese, Japanese, Thai and
            other scripts without spaces the number is estimated from the characters.
        max_characters: Maximum number of characters on either side.
        max_length_ratio: Maximum ratio of the two sides' numbers of words; not applied to pairs
            with at most five words on the longer side.
        group_sources: Whether a random split keeps all pairs of one source sentence in one part.
        unusable: "skip" excludes and counts pairs that exceed a limit or have an empty side, except
            in a given test part, which is kept whole; "keep" keeps all pairs; "raise" raises an
            error that names them.
        columns: Names of the source and the target column of the table that was read, set by the
            constructors; positions ("0", "1") if the table has no header. If the
            command line reads another table like an export's data, it uses the export's columns, if
            the table has them.
        like: Folder of an export. Languages, tokenizer, vocabulary size, Unicode form and case that
            are not set are taken from the export, and a learner uses the export's tokenizers with
            their vocabularies.

    Raises:
        ArtefactError: ``like`` is not an export of ``TranslationData``.
        InputError: A value is invalid, or differs from that of ``like``.
    """

    source_language: str | None = None
    target_language: str | None = None
    tokenizer: str | Tokenizer | TokenizerLike | tuple[Any, Any] | None = None
    vocab_size: int | None = None
    shared_vocab: bool | None = None
    lowercase: bool | None = None
    normalization: str | None = None
    max_words: int = 150
    max_characters: int = 2_000
    max_length_ratio: float = 9.0
    group_sources: bool = True
    unusable: Literal["skip", "keep", "raise"] = "skip"
    columns: tuple[str, str] | None = None
    like: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        self._check_tokenizer()
        if self.normalization not in (None, *FORMS):
            raise InputError(
                f"normalization={self.normalization!r} is invalid. Use one of {', '.join(FORMS)}."
            )
        if self.unusable not in ("skip", "keep", "raise"):
            raise InputError(
                f"unusable={self.unusable!r} is invalid. Use 'skip', 'keep' or 'raise'."
            )
        for name in ("vocab_size", "max_words", "max_characters"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise InputError(f"{name} must be a whole number of at least 1, not {value!r}.")
        if not self.max_length_ratio > 1:
            raise InputError(f"max_length_ratio must be above 1, not {self.max_length_ratio!r}.")
        if self.like is not None:
            saved = _saved_options(self.like)
            given = {name: getattr(self, name) for name in saved}
            for name, value in filled_like(self.like, given, saved).items():
                object.__setattr__(self, name, value)

    def _check_tokenizer(self) -> None:
        if self.given_tokenizers is not None:
            both_sides(self.given_tokenizers)
        # With ``like`` it may be the name of a tokenizer that the export's data were given.
        elif self.tokenizer not in (None, *TOKENIZERS) and self.like is None:
            raise InputError(
                f"tokenizer={self.tokenizer!r} is invalid. Use one of {', '.join(TOKENIZERS)}, or "
                "an object with encode, decode and __len__."
            )

    @property
    def given_tokenizers(self) -> Any:
        """The tokenizers in ``tokenizer``; None if it is a name or None."""
        return None if isinstance(self.tokenizer, str | None) else self.tokenizer

    @property
    def columns_of_like(self) -> tuple[str, str] | None:
        """Source and target column of the data of the export ``like``; None without a table."""
        if self.like is None:
            return None
        found = reading_options(read_record(self.like, "translate", "like")).get("columns")
        return None if found is None else (found[0], found[1])

    def with_given(self, given: Mapping[str, Any]) -> TranslationOptions:
        """Return a copy with the values of ``given`` that are not None."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def _saved_options(like: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the options that an export determines, by name; None for an unknown option."""
    record = read_record(like, "translate", "like")
    planned = {} if record.plan is None else Plan.from_json(record.plan).values
    guard = record.preprocessor.arguments.get("language_guard") or {}
    source = tokenizer_from_json(record.preprocessor.arguments["source"])
    return {
        **{name: guard.get(name) for name in ("source_language", "target_language")},
        **{name: planned.get(name) for name in _PLANNED},
        "lowercase": source.normalize("A") == "a",
    }
