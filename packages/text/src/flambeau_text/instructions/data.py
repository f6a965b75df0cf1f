"""``InstructionData``: prompts with answers, and conversations, immutable."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flambeau.artefact.read_like import read_record
from flambeau.data.data import Data
from flambeau.data.loader import Dataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.reading import Reading, readings_as_facts
from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau.data.split_request import SplitRequest
from flambeau.data.tables import read_csv
from flambeau.errors import ArgumentError, InputError, did_you_mean, explains_arguments
from flambeau_text.file_kinds import TABLE_SUFFIXES, suffix_of
from flambeau_text.instructions.conversations import (
    ASSISTANT,
    messages_of,
    read_jsonl,
    read_records,
    read_rows,
)
from flambeau_text.instructions.options import FIELDS, InstructionOptions
from flambeau_text.instructions.preprocess import InstructionPreprocessor
from flambeau_text.language.facts import LanguageFacts, language_facts
from flambeau_text.language.options import LanguageOptions
from flambeau_text.language.parts import assemble, take_request
from flambeau_text.part_column import read_frames
from flambeau_text.tokenization import tokenizer_from_json

if TYPE_CHECKING:
    from flambeau.report.interpretation import Interpretation
    from flambeau.report.page import Section

_SHOWN = 200  # characters of a conversation in a preview


@explains_arguments()
class InstructionData(Data):
    """Prompts with answers of which a pretrained model learns to give such answers.

    Use one of the constructors ``from_records``, ``from_jsonl`` and ``from_df``. Records have
    "prompt" and "completion", or "messages" with roles; only the tokens of the answers are learned,
    each answer to its stop token.

    Args:
        samples: One row per conversation, with the columns "text" (the JSON of its messages) and
            "location" (where it was found, for messages).
        split: The rows of the train, validation and test parts.
        options: The tokenizer and the names of fields.
        notes: Lines of the report on how the input was read.
        readings: How the records were interpreted.

    Raises:
        InputError: The split has a calibration part, which language models do not use.
    """

    domain = "flambeau_text.language.domain:DOMAIN"

    def __init__(
        self,
        samples: Samples,
        split: Split,
        options: InstructionOptions,
        notes: Sequence[str] = (),
        readings: Sequence[Reading] = (),
    ) -> None:
        if n := len(split.calibration):
            raise InputError(
                f"The split has a calibration part (conversations: {n:,}), which a language model "
                "does not use. Put its conversations in train, valid or test."
            )
        self._samples, self._split = samples, split
        self._options, self._notes = options, tuple(notes)
        self._readings = tuple(readings)
        self._facts: LanguageFacts | None = None

    def __repr__(self) -> str:
        return f"InstructionData({len(self._samples):,} conversations: {self._split.sizes()})"

    # ------------------------------------------------------------ constructors

    @classmethod
    def from_records(
        cls,
        records: Iterable[Any],
        options: InstructionOptions,
        *,
        valid: float | Iterable[Any] = 0.1,
        test: float | Iterable[Any] = 0.0,
        split: Split | None = None,
        seed: int = 0,
    ) -> InstructionData:
        """Read mappings, such as the rows of a Hugging Face data set.

        Args:
            records: Mappings with "messages", or with "prompt" and "completion".
            options: The tokenizer and the names of fields.
            valid: Fraction or number of records drawn at random for validation, or separate ones.
            test: The same for the test part.
            split: The rows of each part, in place of a random split.
            seed: Seed of the random split.

        Raises:
            InputError: A record is invalid; the message has its index.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed, default_valid=0.1)
        given = {"train": records, **request.separate(object)}
        parts = {part: read_records(items, options) for part, items in given.items()}
        return cls._of(parts, request, options)

    @classmethod
    def from_jsonl(
        cls,
        path: str | os.PathLike[str],
        options: InstructionOptions,
        *,
        valid: float | str | os.PathLike[str] = 0.1,
        test: float | str | os.PathLike[str] = 0.0,
        split: Split | None = None,
        seed: int = 0,
    ) -> InstructionData:
        """Read a file with one JSON object in each line; arguments as for `from_records`.

        Args:
            path: The file, UTF-8, also ``.gz``.
            options: The tokenizer and the names of fields.
            valid: Fraction or number of records drawn at random, or a separate file.
            test: The same for the test part.
            split: The rows of each part, in place of a random split.
            seed: Seed of the random split.
        """
        request = SplitRequest(valid, test, split, seed, default_valid=0.1)
        given = {"train": path, **request.separate(str, os.PathLike)}
        parts = {part: read_jsonl(Path(file), options) for part, file in given.items()}
        return cls._of(parts, request, options)

    @classmethod
    def from_df(
        cls,
        frame: Any,
        options: InstructionOptions,
        *,
        split: str | Split | bool | None = None,
        valid: Any = 0.1,
        test: Any = 0.0,
        seed: int = 0,
    ) -> InstructionData:
        """Read the columns of a data frame; arguments as for `from_records`.

        Args:
            frame: A data frame (pandas, polars, pyarrow, …), or a mapping of column names to
                sequences.
            options: The tokenizer and the names of columns.
            split: Name of a column with train, valid or test for each row; or a `Split`. None uses
                the column "split" or "is_valid" if there is one; False uses no column.
            valid: Fraction or number of records drawn at random; or a frame.
            test: The same for the test part.
            seed: Seed of the random split.
        """
        request = SplitRequest(valid, test, split, seed, default_valid=0.1)
        tables = read_frames(frame, request)
        parts = {part: read_rows(table, options) for part, table in tables.items()}
        return cls._of(parts, request, options, tables["train"])

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], options: Mapping[str, Any]) -> InstructionData:
        """Read the file of ``flambeau fit PATH``: JSON lines, or a table.

        Args:
            path: The file.
            options: ``valid`` and ``test``, each a fraction, a number of records, or a file;
                ``split``, the column of a table with the parts; ``seed``; the fields of
                ``InstructionOptions``; ``like``, the export whose tokenizer is used; ``evaluate``,
                the part that is scored.

        Raises:
            ArgumentError: An option is unknown, or no pretrained model is named.
            InputError: A record is invalid; the message has its line.
        """
        from flambeau_text.instructions.recognise import instruction_reading

        path = Path(path)
        given = {name: value for name, value in options.items() if value is not None}
        given.pop("task", None)  # that of all language models
        like = given.pop("like", None)
        names = ("language_model", *FIELDS, "form")
        chosen = {name: given.pop(name) for name in names if name in given}
        request = take_request(given)
        if given:
            name = next(iter(given))
            known = ["valid", "test", "split", *names]
            raise ArgumentError(
                f"Unknown option {name!r} for prompts and conversations. "
                f"{did_you_mean(name, known)}"
            )
        if like is not None:
            chosen |= _options_of_export(like)
        settings = InstructionOptions(**chosen)
        files = {"train": path, **request.separate(Path)}
        if suffix_of(path) in TABLE_SUFFIXES:
            tables = {part: read_csv(file) for part, file in files.items()}
            parts = {part: read_rows(table, settings) for part, table in tables.items()}
            return cls._of(parts, request, settings, tables["train"])
        parts = {part: read_jsonl(file, settings) for part, file in files.items()}
        found = instruction_reading(path)
        return cls._of(parts, request, settings, readings=() if found is None else (found,))

    @classmethod
    def _of(
        cls,
        parts: Any,
        request: SplitRequest,
        options: InstructionOptions,
        table: Any = None,
        readings: Sequence[Reading] = (),
    ) -> InstructionData:
        fields = (options.messages, options.prompt, options.completion)
        samples, split, _, notes = assemble(parts, request, LanguageOptions(), table, fields)
        return cls(samples, split, options, notes, readings)

    # ------------------------------------------------------------ content

    @property
    def samples(self) -> Samples:
        """All conversations, one row per conversation."""
        return self._samples

    @property
    def split(self) -> Split:
        return self._split

    @property
    def options(self) -> InstructionOptions:
        """The tokenizer and the names of fields."""
        return self._options

    @property
    def choices(self) -> Mapping[str, Any]:
        tokenizer = self._options.tokenizer
        return {"tokenizer": tokenizer.kind, "vocab_size": len(tokenizer)}

    @property
    def readings(self) -> tuple[Reading, ...]:
        return self._readings

    def facts(self) -> LanguageFacts:
        if self._facts is None:
            contents = [
                "\n".join(each["content"] for each in messages_of(text))
                for text in self._samples["text"]
            ]
            options = LanguageOptions(tokenizer=self._options.tokenizer)
            found = dict(language_facts(contents, self._split, options))
            if (decoder := self._options.decoder) is not None:
                found["language_model"] = decoder.as_facts()
            self._facts = cast("LanguageFacts", found | readings_as_facts(self._readings))
        return self._facts

    def report(self) -> str:
        """Return the numbers of conversations, messages and answers as text."""
        lines = [f"split: {self._split.describe()}", *self._split.notes, *self._notes]
        lines += map(str, self._readings)
        for part in ("train", "valid", "test"):
            found = [messages_of(text) for text in self._texts(part)]
            if found:
                answers = sum(each["role"] == ASSISTANT for messages in found for each in messages)
                lines.append(
                    f"{part}: {len(found):,} conversations, {sum(map(len, found)):,} messages, "
                    f"{answers:,} answers"
                )
        return "\n".join(lines)

    def _texts(self, part: str) -> list[str]:
        texts = self._samples["text"]
        return [texts[row] for row in self._split.part(part).tolist()]

    def raw(self, part: str) -> list[Any]:
        """Return the messages before the last answer of each conversation."""
        found: list[Any] = []
        for text in self._texts(part):
            messages = messages_of(text)
            last = max(at for at, each in enumerate(messages) if each["role"] == ASSISTANT)
            found.append({"messages": messages[:last]})
        return found

    def preview(self, row: int) -> Preview:
        messages = messages_of(self._samples["text"][row])
        text = " ".join(f"{each['role']}: {each['content']}" for each in messages)
        return Preview(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")

    def subset(self, rows: Mapping[str, Sequence[int]]) -> InstructionData:
        return self.with_split(Split.from_parts(rows))

    def with_split(self, split: Split) -> InstructionData:
        return InstructionData(self._samples, split, self._options, self._notes, self._readings)

    # ------------------------------------------------------------ plan to parts

    def preprocessor(self, values: Mapping[str, Any]) -> InstructionPreprocessor:
        options = self._options
        return InstructionPreprocessor(tokenizer=options.tokenizer, form=str(options.form))

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        from flambeau_text.language.packed import PackedDataset

        if not isinstance(preprocessor, InstructionPreprocessor):
            raise ArgumentError(
                "InstructionData needs an InstructionPreprocessor, not a "
                f"{type(preprocessor).__name__}."
            )
        length = values.get("row_length", 512)
        rows = self._split.part(part).tolist()
        locations = [self._samples["location"][row] for row in rows]
        texts = preprocessor.texts(self._texts(part), locations, length, part)
        return PackedDataset(texts, length, preprocessor.tokenizer.special.padding)

    def baselines(self, found: Interpretation) -> Mapping[str, Mapping[str, float]]:
        """Return none: an n-gram model is no measure of answers."""
        return {}

    def report_sections(self, found: Interpretation) -> Sequence[Section]:
        """Return the section with generated answers."""
        from flambeau_text.language.report import generated_section

        section = generated_section(found, self.raw(found.part)[:4] if found.part in PARTS else ())
        return () if section is None else (section,)

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        decoder = self._options.decoder
        if decoder is not None and values["architecture"] in decoder.architectures:
            return decoder.arguments(values)
        return {"vocab_size": len(self._options.tokenizer), "config": values["model_config"]}

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return {
            "tokenizer": self._options.tokenizer.as_json(),
            **values["regularisation"],
            "decoding": values["decoding"],
        }


def _options_of_export(like: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the tokenizer and the form of a model that was trained on instruction data.

    Raises:
        ArtefactError: The export is not that of a language model.
        InputError: It was trained on running text.
    """
    spec = read_record(like, "language", "like").preprocessor
    if spec.builder != "instruction_preprocessor":
        raise InputError(
            f"The records have prompts with answers, but the model in {os.fspath(like)} was "
            "trained on running text. Name the field that is to be scored: --text FIELD."
        )
    tokenizer = tokenizer_from_json(spec.arguments["tokenizer"])
    return {"tokenizer": tokenizer, "form": spec.arguments["form"]}
