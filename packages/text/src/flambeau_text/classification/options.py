"""``TextOptions``: how texts and labels are read, and how texts are tokenized."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from flambeau.artefact.read_like import filled_like, output_names, read_record, reading_options
from flambeau.data.known_classes import Unknown
from flambeau.data.ordered_names import ordered_names
from flambeau.data.targets import Kind
from flambeau.errors import InputError, did_you_mean, explains_arguments
from flambeau.plan import Plan
from flambeau_text.classification.language_encoder import LanguageEncoder
from flambeau_text.huggingface.folder import is_model_folder, refuse_tokenization
from flambeau_text.tokenization import Tokenizer, TokenizerLike, tokenizer_from_json
from flambeau_text.tokenization.option_checks import check_tokenization

if TYPE_CHECKING:
    from flambeau_text.huggingface.encoder_folder import EncoderFolder

Truncation = Literal["head", "head_tail"]
"""What is kept of a text that is too long: its beginning, or half of it from each end."""

TRUNCATIONS: tuple[str, ...] = get_args(Truncation)
TASKS: tuple[str, ...] = get_args(Kind)

_PLANNED = (
    *("tokenizer", "vocab_size", "lowercase", "normalization", "word_rules"),
    *("max_length", "truncation"),
)
_READING = ("text", "label", "weight", "group", "sep")


@explains_arguments()
@dataclass(frozen=True)
class TextOptions:
    """How texts and labels are read, for the constructors of ``TextData``.

    Attributes:
        text: Column of a table, or field of a mapping, with the texts, or two of them for pairs of
            texts; None finds one.
        label: Column or field with the labels, or several columns of numbers; None finds it.
        weight: Column with the weight of each text in loss and metrics: finite and not negative.
        group: Column with the group of each text, such as its author. Drawn parts keep each group
            in one part.
        sep: Separator between several labels of one text.
        classes: All classes in the order of the model's outputs; None uses those in the data.
        task: "classification", "multi_label" or "regression"; None infers it from the labels.
        unknown: "raise" if data that are only evaluated have a class that is not in ``classes``,
            or "skip" such texts.
        tokenizer: "bpe", "unigram", "word" or "character", fitted on train; None lets the plan
            choose. Or a fitted tokenizer, or an object of a registered class (`TokenizerLike`).
        vocab_size: Size of the vocabulary; None lets the plan choose.
        language: A code such as "en", which selects spaCy's rules for words; None uses those of
            "xx", which work for many languages.
        lowercase: Lower-case the texts; None lets the plan choose.
        normalization: Unicode form: "nfc", "nfkc" or "none"; None lets the plan choose.
        word_rules: Whether the tokenizer "word" writes capitals and repetition as tokens of their
            own, see `WordTokenizer`; None lets the plan choose.
        max_length: Most tokens of a text; None lets the plan choose.
        truncation: What is kept of longer texts: "head" or "head_tail" (half of it from each end).
        language_model: Folder of the language model from whose weights the network starts, with its
            tokenizer. A local folder of a pretrained encoder of Hugging Face (BERT, RoBERTa, …)
            gives the network "hf_encoder". The export of an AWD-LSTM language model gives
            "awd_lstm"; if ``tokenizer`` or ``vocab_size`` is set, tokens that both have keep their
            vectors, and new ones get the mean.
        like: Folder of an export. Options that are not set are taken from the export, and a
            learner uses the export's tokenizer and classes.
        encoder: What was read of ``language_model``; None without one.

    Raises:
        ArtefactError: ``like`` is not an export of ``TextData``, or ``language_model`` is neither
            that of an AWD-LSTM nor a model of Hugging Face.
        InputError: A value is invalid, or differs from that of ``like``; or the folder of a
            pretrained encoder lacks a file, or has another kind of model.
        MissingDependencyError: A pretrained encoder needs transformers.
    """

    text: str | Sequence[str] | None = None
    label: str | Sequence[str] | None = None
    weight: str | None = None
    group: str | None = None
    sep: str | None = None
    classes: Sequence[str] | None = None
    task: Kind | None = None
    unknown: Unknown = "raise"
    tokenizer: str | Tokenizer | TokenizerLike | None = None
    vocab_size: int | None = None
    language: str | None = None
    lowercase: bool | None = None
    normalization: str | None = None
    word_rules: bool | None = None
    max_length: int | None = None
    truncation: Truncation | None = None
    language_model: str | os.PathLike[str] | None = None
    like: str | os.PathLike[str] | None = None
    encoder: LanguageEncoder | EncoderFolder | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        if self.task not in (None, *TASKS):
            raise InputError(f"Unknown task={self.task!r}. {did_you_mean(str(self.task), TASKS)}")
        if self.unknown not in get_args(Unknown):
            raise InputError(f"Unknown unknown={self.unknown!r}. Choose 'raise' or 'skip'.")
        if self.truncation not in (None, *TRUNCATIONS):
            hint = did_you_mean(str(self.truncation), TRUNCATIONS)
            raise InputError(f"Unknown truncation={self.truncation!r}. {hint}")
        length: Any = self.max_length
        if length is not None and (type(length) is not int or length < 1):
            raise InputError(f"max_length must be a whole number of at least 1, not {length!r}.")
        if self.language_model is not None:
            self._start_from(self.language_model)
        check_tokenization(self.tokenizer, self.vocab_size, self.normalization, like=self.like)
        if self.text is not None:
            object.__setattr__(self, "text", text_columns(self.text))
        if self.classes is not None:
            object.__setattr__(self, "classes", ordered_names(self.classes, "classes"))
        if self.like is not None:
            self._fill_from_export(self.like)

    def _start_from(self, folder: str | os.PathLike[str]) -> None:
        from flambeau_text.huggingface.encoder_folder import EncoderFolder

        encoder: LanguageEncoder | EncoderFolder
        if is_model_folder(folder):
            refuse_tokenization(self, folder)
            encoder = EncoderFolder.read(folder)
            encoder.check_tokenizer(self.tokenizer)
        else:
            encoder = LanguageEncoder.read(folder)
        object.__setattr__(self, "encoder", encoder)
        if self.tokenizer is None and self.vocab_size is None:
            object.__setattr__(self, "tokenizer", encoder.build_tokenizer())

    def _fill_from_export(self, like: str | os.PathLike[str]) -> None:
        from flambeau_text.huggingface.encoder_folder import EncoderFolder

        saved = _saved_options(like)
        given = {name: getattr(self, name) for name in saved}
        for name, value in filled_like(like, given, saved).items():
            object.__setattr__(self, name, value)
        record = read_record(like, "text", "like")
        if self.language_model is None:
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
    def reading_options(self) -> dict[str, Any]:
        """The options to use for reading further texts for the same model, as JSON values."""
        lists = {
            name: value if value is None or isinstance(value, str) else [*value]
            for name, value in (("text", self.text), ("label", self.label))
        }
        found = {**{name: getattr(self, name) for name in _READING}, **lists}
        return {name: value for name, value in found.items() if value is not None}

    def updated(self, given: Mapping[str, Any]) -> TextOptions:
        """Return the options with all values of ``given`` that are not None."""
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def text_columns(given: str | Sequence[str]) -> str | tuple[str, str]:
    """Return the name of the column of texts, or of the two columns of pairs.

    Raises:
        InputError: There are more than two names, or a name twice.
    """
    if isinstance(given, str):
        return given
    names = tuple(map(str, given))
    if len(names) == 1:
        return names[0]
    if len(names) != 2 or names[0] == names[1]:
        raise InputError(
            f"text={list(names)!r} must name one column, or two different ones for pairs of texts."
        )
    return names[0], names[1]


def _saved_options(like: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the options that an export determines, by name; None if it lacks the option."""
    record = read_record(like, "text", "like")
    planned = {} if record.plan is None else Plan.from_json(record.plan).values
    values = cast("Mapping[str, Any]", record.preprocessor.arguments["tokenizer"])
    tokenizer = tokenizer_from_json(values)
    builder = record.task.builder
    names = None if builder == "regression" else output_names(record.task.arguments)
    return {
        **{name: planned.get(name) for name in _PLANNED},
        "lowercase": tokenizer.normalize("A") == "a",
        "language": values.get("inner", values).get("language"),
        "classes": names or None,
        "task": builder if builder in TASKS else None,
    }
