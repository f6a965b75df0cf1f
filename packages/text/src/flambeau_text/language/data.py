"""``LanguageModelData``: documents with their split and options, immutable."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from flambeau.data.data import Data
from flambeau.data.loader import Dataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau.data.split_request import SplitRequest
from flambeau.data.tables import read_csv
from flambeau.errors import ArgumentError, InputError, explains_arguments
from flambeau_text.classification.paths import read_inputs
from flambeau_text.language.documents import read_items
from flambeau_text.language.facts import LanguageFacts, language_facts
from flambeau_text.language.lazy_texts import (
    NormalizedLines,
    chosen_of,
    digests_of,
    joined,
)
from flambeau_text.language.options import LanguageOptions
from flambeau_text.language.parts import assemble, read_parts, read_path, read_tables
from flambeau_text.language.preprocess import LanguagePreprocessor
from flambeau_text.language.stream import LineCounts, StreamDataset
from flambeau_text.part_column import read_frames
from flambeau_text.text_lines import lines_of
from flambeau_text.tokenization import Tokenizer
from flambeau_text.tokenization.backward import in_direction
from flambeau_text.tokenization.fit import as_tokenizer, fit_tokenizer, tokenizer_name

if TYPE_CHECKING:
    from flambeau.report.interpretation import Interpretation
    from flambeau.report.page import Section

PathLike: TypeAlias = str | os.PathLike[str]

_SHOWN = 200  # characters of a document in a preview


@explains_arguments()
class LanguageModelData(Data):
    """Documents of which a model learns to predict each token from those before it.

    Use one of the constructors ``from_files``, ``from_df``, ``from_csv`` and ``from_texts``. Train
    documents are shuffled in each epoch and form one stream of tokens.

    Args:
        samples: One row per document, with the columns "text" and "location" (where the document
            was found, for messages).
        split: The rows of the train, validation and test parts.
        options: Options for reading and tokenizing documents.
        notes: Lines of the report on how the input was read, if the arguments did not determine it.

    Raises:
        InputError: The split has a calibration part, which language models do not use.

    Example:
        >>> data = LanguageModelData.from_texts(["a dog runs", "a cat sleeps"] * 5, valid=2)
        >>> data.facts()["n_train"], data.facts()["words"]
        (8, 24)
    """

    domain = "flambeau_text.language.domain:DOMAIN"

    def __init__(
        self,
        samples: Samples,
        split: Split,
        options: LanguageOptions | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        if n := len(split.calibration):
            raise InputError(
                f"The split has a calibration part (documents: {n:,}), which a language model does "
                "not use. Put its documents in train, valid or test."
            )
        self._samples = samples
        self._split = split
        self._options = options or LanguageOptions()
        self._notes = tuple(notes)
        self._facts: LanguageFacts | None = None

    def __repr__(self) -> str:
        return f"LanguageModelData({len(self._samples):,} documents: {self._split.sizes()})"

    # ------------------------------------------------------------ constructors

    @classmethod
    def from_files(
        cls,
        files: PathLike | Sequence[PathLike],
        *,
        valid: float | PathLike | Sequence[PathLike] = 0.1,
        test: float | PathLike | Sequence[PathLike] = 0.0,
        split: Split | None = None,
        seed: int = 0,
        options: LanguageOptions | None = None,
    ) -> LanguageModelData:
        """Read UTF-8 text files (also .gz), or the text files in folders.

        Args:
            files: A file, a folder, or several of them. Each line of a ``.jsonl`` file is a
                document. In a single folder, files and folders called train, valid and test are
                these parts.
            valid: Fraction or number of documents drawn at random for validation, or separate
                files or folders.
            test: The same for the test part.
            split: The rows of each part, in place of a random split.
            seed: Seed of the random split.
            options: Options for reading and tokenizing documents.

        Raises:
            InputError: A file is missing or not UTF-8 (the message names the line), or there is no
                text.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed, default_valid=0.1)
        options = options or LanguageOptions()
        separate = request.separate(str, os.PathLike, list, tuple)
        others = {part: _paths(given) for part, given in separate.items()}
        return cls(*read_parts(_paths(files), others, request, options))

    @classmethod
    def from_df(
        cls,
        frame: Any,
        text: str | None = None,
        *,
        split: str | Split | bool | None = None,
        valid: Any = 0.1,
        test: Any = 0.0,
        seed: int = 0,
        options: LanguageOptions | None = None,
    ) -> LanguageModelData:
        """Read the documents in a column of a data frame.

        Args:
            frame: A data frame (pandas, polars, pyarrow, …), or a mapping of column names to
                sequences.
            text: Name of the column; None uses "text", or the only column.
            split: Name of a column with train, valid or test for each row; or a `Split`. None uses
                the column "split" or "is_valid" if there is one; False uses no column.
            valid: Fraction or number of documents drawn at random for validation; or a frame.
            test: The same for the test part.
            seed: Seed of the random split.
            options: Options for tokenizing documents.

        Raises:
            InputError: The column does not exist, or a cell is not a text; the message names the
                row.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed, default_valid=0.1)
        tables = read_frames(frame, request)
        return cls(*read_tables(tables, request, _with_text(options, text)))

    @classmethod
    def from_csv(
        cls,
        path: PathLike,
        text: str | None = None,
        *,
        split: str | Split | bool | None = None,
        valid: float | PathLike = 0.1,
        test: float | PathLike = 0.0,
        seed: int = 0,
        options: LanguageOptions | None = None,
    ) -> LanguageModelData:
        """Read the documents in a column of a CSV or TSV file; arguments as for `from_df`.

        ``valid`` and ``test`` may be files.
        """
        request = SplitRequest(valid, test, split, seed, default_valid=0.1)
        files = {"train": path, **request.separate(str, os.PathLike)}
        tables = {part: read_csv(file) for part, file in files.items()}
        return cls(*read_tables(tables, request, _with_text(options, text)))

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[Any],
        *,
        valid: float | Iterable[Any] = 0.1,
        test: float | Iterable[Any] = 0.0,
        split: Split | None = None,
        seed: int = 0,
        options: LanguageOptions | None = None,
    ) -> LanguageModelData:
        """Read documents from an iterable.

        Args:
            texts: Texts, mappings with a text, or the rows of a Hugging Face data set; iterated
                over once.
            valid: Fraction or number of documents drawn at random, or separate documents.
            test: The same for the test part.
            split: The rows of each part, in place of a random split.
            seed: Seed of the random split.
            options: Options for tokenizing documents.

        Raises:
            InputError: An item has no text; the message has its index.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed, default_valid=0.1)
        options = options or LanguageOptions()
        separate = request.separate(object)
        parts = {
            part: read_items(items, options.text)
            for part, items in {"train": texts, **separate}.items()
        }
        return cls(*assemble(parts, request, options))

    @classmethod
    def from_path(cls, path: PathLike, options: Mapping[str, Any]) -> Data:
        """Read the data of ``flambeau fit PATH``; see `read_path`."""
        return cls(*read_path(Path(path), options))

    @classmethod
    def inputs_from_path(cls, path: Path) -> Sequence[Any]:
        """Return the prompts of a file, which ``flambeau predict MODEL PATH`` continues.

        They are its lines, the rows of a table or of JSON lines, or the files of a folder.
        """
        return read_inputs(path)

    # ------------------------------------------------------------ content

    @property
    def samples(self) -> Samples:
        """All documents, one row per document."""
        return self._samples

    @property
    def split(self) -> Split:
        return self._split

    @property
    def options(self) -> LanguageOptions:
        """How documents are read and tokenized."""
        return self._options

    @property
    def like(self) -> Path | None:
        return None if self._options.like is None else Path(self._options.like)

    @property
    def choices(self) -> Mapping[str, Any]:
        options = self._options
        given: dict[str, Any] = {
            "tokenizer": options.tokenizer,
            "vocab_size": options.vocab_size,
            "normalization": options.normalization,
            "word_rules": options.word_rules,
            "backward": options.backward,
        }
        passed = options.given_tokenizer
        if passed is not None:
            extra = 0 if isinstance(passed, Tokenizer) else 4
            given |= {"tokenizer": tokenizer_name(passed), "vocab_size": len(passed) + extra}
        return {key: value for key, value in given.items() if value is not None}

    @property
    def reading_options(self) -> Mapping[str, Any]:
        given = {"document": self._options.document, "text": self._options.text}
        return {name: value for name, value in given.items() if value is not None}

    def facts(self) -> LanguageFacts:
        if self._facts is None:
            self._facts = language_facts(self._samples["text"], self._split, self._options)
        return self._facts

    def report(self) -> str:
        """Return the numbers of documents, lines, words and characters as text."""
        lines = [f"split: {self._split.describe()}", *self._split.notes, *self._notes]
        for part in ("train", "valid", "test"):
            texts = self.raw(part)
            if not texts:
                continue
            words = sum(len(text.split()) for text in texts)
            n_lines = sum(len(lines_of(text)) for text in texts)
            size = sum(len(text.encode("utf-8", "replace")) for text in texts)
            lines.append(
                f"{part}: {len(texts):,} documents, {n_lines:,} lines, {words:,} words, "
                f"{size:,} bytes"
            )
        train = digests_of(self.raw("train"))
        for part in ("valid", "test"):
            repeated = int(np.isin(digests_of(self.raw(part)), train).sum())
            if repeated:
                lines.append(f"{part}: {repeated:,} documents are also in train")
        problems = self._samples.problems
        if problems:
            lines.append(f"left out: {len(problems):,}, for example {problems[0]}")
        return "\n".join(lines)

    def raw(self, part: str) -> Sequence[str]:
        return chosen_of(self._samples["text"], self._split.part(part))

    def preview(self, row: int) -> Preview:
        text = self._samples["text"][row]
        return Preview(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")

    def subset(self, rows: Mapping[str, Sequence[int]]) -> LanguageModelData:
        return self.with_split(Split.from_parts(rows))

    def with_split(self, split: Split) -> LanguageModelData:
        return LanguageModelData(self._samples, split, self._options, self._notes)

    # ------------------------------------------------------------ report

    def baselines(self, found: Interpretation) -> Mapping[str, Mapping[str, float]]:
        """Return the scores of an n-gram model; see `ngram_scores`."""
        from flambeau_text.language.report import ngram_scores

        return ngram_scores(self.raw("train"), self._scored(found), found)

    def report_sections(self, found: Interpretation) -> Sequence[Section]:
        """Return the section with generated text."""
        from flambeau_text.language.report import first_words, generated_section

        section = generated_section(found, first_words(self._scored(found)))
        return () if section is None else (section,)

    def _scored(self, found: Interpretation) -> Sequence[str]:
        """Return the documents of a report: of its parts, or all of data that are only scored."""
        parts = [self.raw(part) for part in found.part.split(", ") if part in PARTS]
        return reduce(joined, parts) if parts else self._samples["text"]

    # ------------------------------------------------------------ plan to parts

    def preprocessor(self, values: Mapping[str, Any]) -> LanguagePreprocessor:
        options, form = self._options, values["normalization"]
        lowercase, backward = bool(options.lowercase), values.get("backward", False)
        given = options.given_tokenizer
        if given is not None and values["tokenizer"] == tokenizer_name(given):
            tokenizer = as_tokenizer(given, lowercase, form)
            return LanguagePreprocessor(tokenizer=in_direction(tokenizer, backward))
        facts = self.facts()
        lines = NormalizedLines(self.raw("train"), form, facts["lines"], facts["characters"])
        tokenizer = fit_tokenizer(lines, values, options.language, lowercase)
        return LanguagePreprocessor(tokenizer=in_direction(tokenizer, backward))

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        texts = self.raw(part)
        if not texts:
            raise InputError(
                f"There are no {part} documents. Pass {part}= to the constructor of the data: a "
                "fraction, or separate documents."
            )
        stream = _checked(preprocessor).stream(texts, values.get("cache", "memory"))
        if values.get("layout", "stream") == "stream":
            return StreamDataset(stream, values.get("bptt", 70))
        from flambeau_text.language.packed import PackedDataset, StreamTexts

        length = values.get("row_length", 512)
        pieces = StreamTexts(stream, length)
        return PackedDataset(pieces, length, stream.special.padding, LineCounts(stream))

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        tokenizer, decoder = _checked(preprocessor).tokenizer, self._options.decoder
        if decoder is not None and values["architecture"] in decoder.architectures:
            return decoder.arguments(values)
        return {"vocab_size": len(tokenizer), "config": values["model_config"]}

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return {
            "tokenizer": _checked(preprocessor).tokenizer.as_json(),
            **values["regularisation"],
            "decoding": values["decoding"],
        }


def _with_text(options: LanguageOptions | None, text: str | None) -> LanguageOptions:
    options = options or LanguageOptions()
    return options if text is None else replace(options, text=text)


def _paths(given: Any) -> list[Path]:
    if isinstance(given, str | os.PathLike):
        return [Path(given)]
    return [Path(each) for each in given]


def _checked(preprocessor: Preprocessor) -> LanguagePreprocessor:
    if not isinstance(preprocessor, LanguagePreprocessor):
        raise ArgumentError(
            f"LanguageModelData needs a LanguagePreprocessor, not a {type(preprocessor).__name__}."
        )
    return preprocessor
