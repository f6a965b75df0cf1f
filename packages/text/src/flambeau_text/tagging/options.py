"""``TagOptions``: how sentences with tags are read, and how their words are tokenized."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from flambeau.artefact.read_like import filled_like, output_names, read_record, reading_options
from flambeau.data.ordered_names import ordered_names
from flambeau.errors import ArgumentError, InputError, explains_arguments
from flambeau.plan import Plan
from flambeau_text.huggingface.folder import is_model_folder, refuse_tokenization
from flambeau_text.tokenization.fit import tokenizer_name
from flambeau_text.tokenization.option_checks import check_tokenization

if TYPE_CHECKING:
    from flambeau_text.huggingface.encoder_folder import EncoderFolder

_PLANNED = ("tokenizer", "vocab_size", "normalization")
_READING = ("words", "tags", "sentence")


@explains_arguments()
@dataclass(frozen=True)
class TagOptions:
    """How sentences are read and their words tokenized, for the constructors of ``TagData``.

    Attributes:
        words: Column of a table with the words: a list or a text per sentence, or one word per row;
            None finds a column with a usual name ("words", "tokens", …). In files of CoNLL a number
            from 0, or in CoNLL-U a name such as "form"; None uses the first, or FORM.
        tags: Column with the tags, in the same form; None finds it ("tags", "ner_tags", …).
            In files of CoNLL None uses the last, or UPOS.
        sentence: Column that tells the sentences of a table with one word per row apart; None finds
            it ("sentence_id", "sentence", …).
        classes: All tags in the order of the model's outputs; None uses those in the data, sorted.
        tokenizer: "bpe", "unigram", "word" (a token per word) or "character", fitted on train; None
            lets the plan choose. Or a fitted tokenizer.
        vocab_size: Size of the vocabulary; None lets the plan choose.
        normalization: Unicode form: "nfc", "nfkc" or "none"; None lets the plan choose.
        language_model: Local folder of a pretrained encoder of Hugging Face (BERT, RoBERTa, …),
            from which the network "hf_encoder" starts, with its tokenizer.
        like: Folder of an export. Options that are not set are taken from the export, and a
            learner uses the export's tokenizer and classes.
        encoder: What was read of ``language_model``; None without one.

    Raises:
        ArtefactError: ``like`` is not an export of ``TagData``.
        InputError: A value is invalid, or differs from that of ``like``; or the folder of the
            encoder lacks a file, or has another kind of model.
        MissingDependencyError: A pretrained encoder needs transformers.
    """

    words: str | None = None
    tags: str | None = None
    sentence: str | None = None
    classes: Sequence[str] | None = None
    tokenizer: Any = None
    vocab_size: int | None = None
    normalization: str | None = None
    language_model: str | os.PathLike[str] | None = None
    like: str | os.PathLike[str] | None = None
    encoder: EncoderFolder | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        for name in _READING:
            value: Any = getattr(self, name)
            if isinstance(value, int) and not isinstance(value, bool):  # the number of a column
                object.__setattr__(self, name, str(value))
            elif value is not None and not isinstance(value, str):
                raise ArgumentError(f"{name} must be the name of a column, not {value!r:.60}.")
        if self.language_model is not None:
            self._start_from(self.language_model)
        check_tokenization(self.tokenizer, self.vocab_size, self.normalization, like=self.like)
        if self.classes is not None:
            object.__setattr__(self, "classes", ordered_names(self.classes, "classes"))
        if self.like is not None:
            self._fill_from_export(self.like)

    def _start_from(self, folder: str | os.PathLike[str]) -> None:
        from flambeau_text.huggingface.encoder_folder import EncoderFolder

        if not is_model_folder(folder):
            raise InputError(
                f"language_model={os.fspath(folder)!r} is not the folder of a model of Hugging "
                "Face, with config.json, weights in safetensors and a tokenizer. Tags are learned "
                "from such an encoder, or without language_model."
            )
        refuse_tokenization(self, folder)
        encoder = EncoderFolder.read(folder)
        encoder.check_tokenizer(self.tokenizer)
        object.__setattr__(self, "encoder", encoder)
        object.__setattr__(self, "tokenizer", encoder.build_tokenizer())

    def _fill_from_export(self, like: str | os.PathLike[str]) -> None:
        from flambeau_text.huggingface.encoder_folder import EncoderFolder

        record = read_record(like, "tags", "like")
        planned = {} if record.plan is None else Plan.from_json(record.plan).values
        saved: dict[str, Any] = {name: planned.get(name) for name in _PLANNED}
        saved["classes"] = output_names(record.task.arguments) or None
        given = {name: getattr(self, name) for name in saved}
        for name, value in filled_like(like, given, saved).items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "encoder", EncoderFolder.of_export(record))
        known = reading_options(record)
        for name in _READING:
            if getattr(self, name) is None:
                object.__setattr__(self, name, known.get(name))

    @property
    def given_tokenizer(self) -> Any:
        """The tokenizer that was passed as an object; None if it is a name or None."""
        return None if isinstance(self.tokenizer, str | None) else self.tokenizer

    @property
    def tokenizer_name(self) -> str | None:
        """The plan's name of the tokenizer; None if the plan chooses one."""
        given = self.given_tokenizer
        return cast("str | None", self.tokenizer) if given is None else tokenizer_name(given)

    @property
    def reading_options(self) -> dict[str, Any]:
        """The options to use for reading further sentences for the same model, as JSON values."""
        found = {name: getattr(self, name) for name in _READING}
        return {name: value for name, value in found.items() if value is not None}

    def updated(self, given: Mapping[str, Any]) -> TagOptions:
        """Return the options with all values of ``given`` that are not None."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})
