"""``LanguageOptions``: how documents are read and tokenized."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from flambeau.artefact.read_like import filled_like, read_record
from flambeau.errors import InputError, explains_arguments
from flambeau.plan import Plan
from flambeau_text.huggingface.decoder_folder import DecoderFolder, read_decoder
from flambeau_text.huggingface.folder import refuse_tokenization
from flambeau_text.language.documents import UNITS, Unit
from flambeau_text.tokenization import Tokenizer, TokenizerLike, tokenizer_from_json
from flambeau_text.tokenization.option_checks import check_tokenization

_PLANNED = ("tokenizer", "vocab_size", "normalization", "word_rules", "backward")


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
        backward: Whether the model reads texts from their end to their start. A classifier that
            starts from it reads backwards, too. None is False.
        language_model: Local folder of a pretrained decoder of Hugging Face (Llama, GPT-2, …),
            which a learner fine-tunes, with its tokenizer.
        like: Folder of an export. Options of tokenization that are not set are taken from the
            export, and a learner uses the export's tokenizer with its vocabulary.
        decoder: What was read of ``language_model``; None without one.

    Raises:
        ArtefactError: ``like`` is not an export of ``LanguageModelData``.
        InputError: A value is invalid, or differs from that of ``like``; or the folder of the
            decoder lacks a file, or has another kind of model.
        MissingDependencyError: A pretrained decoder needs transformers.
    """

    document: Unit | None = None
    text: str | None = None
    tokenizer: str | Tokenizer | TokenizerLike | None = None
    vocab_size: int | None = None
    language: str | None = None
    lowercase: bool | None = None
    normalization: str | None = None
    word_rules: bool | None = None
    backward: bool | None = None
    language_model: str | os.PathLike[str] | None = None
    like: str | os.PathLike[str] | None = None
    decoder: DecoderFolder | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.language_model is not None:
            refuse_tokenization(self, self.language_model)
            decoder = read_decoder(self.language_model)
            object.__setattr__(self, "decoder", decoder)
            object.__setattr__(self, "tokenizer", decoder.tokenizer)
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
        "language": values.get("inner", values).get("language"),
        "lowercase": tokenizer.normalize("A") == "a",
    }
