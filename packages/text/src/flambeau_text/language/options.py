"""``LanguageOptions``: how documents are read and tokenized."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from flambeau.artefact.read_like import filled_like, read_record
from flambeau.errors import InputError, explains_arguments
from flambeau.plan import Plan
from flambeau_text.language.documents import UNITS, Unit
from flambeau_text.tokenization import Tokenizer, TokenizerLike, tokenizer_from_json
from flambeau_text.tokenization.option_checks import check_tokenization

_PLANNED = ("tokenizer", "vocab_size", "normalization", "word_rules")


@explains_arguments()
@dataclass(frozen=True)
class LanguageOptions:
    """How documents are read and tokenized, for the constructors of ``LanguageModelData``.

    Attributes:
        document: What one document of a text file is: "file", "paragraph" (lines between blank
            lines) or "line". None: each of several files; in a single file each paragraph, or each
            line if there are fewer than ten paragraphs.
        text: Column of a table, or field of a mapping, with the texts; None uses "text", or the
            only one.
        tokenizer: "bpe", "unigram", "word" or "character", fitted on train; None lets the plan
            choose. Or a fitted tokenizer, or an object of a registered class (`TokenizerLike`).
        vocab_size: Size of the vocabulary; None lets the plan choose.
        language: A code such as "en", which selects spaCy's rules for words; without it the
            tokenizer "word" splits at white space.
        lowercase: Lower-case the texts. None is False.
        normalization: Unicode form: "nfc", "nfkc" or "none"; None lets the plan choose.
        word_rules: Whether the tokenizer "word" writes capitals and repetition as tokens of their
            own, see `WordTokenizer`; None lets the plan choose.
        like: Folder of an export. Options of tokenization that are not set are taken from the
            export, and a learner uses the export's tokenizer with its vocabulary.

    Raises:
        ArtefactError: ``like`` is not an export of ``LanguageModelData``.
        InputError: A value is invalid, or differs from that of ``like``.
    """

    document: Unit | None = None
    text: str | None = None
    tokenizer: str | Tokenizer | TokenizerLike | None = None
    vocab_size: int | None = None
    language: str | None = None
    lowercase: bool | None = None
    normalization: str | None = None
    word_rules: bool | None = None
    like: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.document not in (None, *UNITS):
            raise InputError(
                f"document={self.document!r} is invalid. Use one of {', '.join(UNITS)}."
            )
        check_tokenization(self.tokenizer, self.vocab_size, self.normalization, like=self.like)
        if self.like is not None:
            saved = _saved_options(self.like)
            given = {name: getattr(self, name) for name in saved}
            for name, value in filled_like(self.like, given, saved).items():
                object.__setattr__(self, name, value)

    @property
    def given_tokenizer(self) -> Any:
        """The tokenizer that was passed as an object; None if it is a name or None."""
        return None if isinstance(self.tokenizer, str | None) else self.tokenizer


def _saved_options(like: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the options that an export determines, by name; None for an unknown option."""
    record = read_record(like, "language", "like")
    planned = {} if record.plan is None else Plan.from_json(record.plan).values
    values = cast("Mapping[str, Any]", record.preprocessor.arguments["tokenizer"])
    tokenizer = tokenizer_from_json(values)
    return {
        **{name: planned.get(name) for name in _PLANNED},
        "language": values.get("language"),
        "lowercase": tokenizer.normalize("A") == "a",
    }
