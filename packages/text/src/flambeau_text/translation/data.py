"""``TranslationData``: sentence pairs with their split and options, immutable."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from flambeau.data.data import Data
from flambeau.data.loader import Dataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.samples import Samples
from flambeau.data.split import Split
from flambeau.data.split_request import SplitRequest
from flambeau.errors import ArgumentError, InputError, explains_arguments
from flambeau_text.text_lines import read_lines
from flambeau_text.tokenization.bpe_dropout import BpeDropout
from flambeau_text.translation.dataset import (
    EncodedPairs,
    PairsWithDropout,
    source_rows,
    target_rows,
)
from flambeau_text.translation.facts import TranslationFacts, translation_facts
from flambeau_text.translation.from_plan import fit_preprocessor
from flambeau_text.translation.given_tokenizers import plan_values
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.translation.preprocess import TranslationPreprocessor
from flambeau_text.translation.report import report
from flambeau_text.translation.sources import (
    read_csv_columns,
    read_files,
    read_frame,
    read_items,
    read_path,
)

if TYPE_CHECKING:
    from flambeau.artefact.predictor import Predictor

PathLike: TypeAlias = str | os.PathLike[str]
Part: TypeAlias = float | tuple[Any, Any]
"""The size of a validation or test part: a fraction or number of pairs, or two separate files."""


@explains_arguments()
class TranslationData(Data):
    """Sentence pairs, checked, filtered and split.

    Use one of the constructors ``from_files``, ``from_df``, ``from_csv`` and ``from_pairs``.

    Args:
        samples: One row per pair, with the columns "source", "target" and "location" (where the
            pair was found, for messages).
        split: The rows of the train, validation and test parts.
        options: Options for tokenizing and filtering pairs.
        skipped: Number of unusable pairs by reason.
        notes: Lines of the report on how the input was read, if the arguments did not determine it.

    Raises:
        InputError: The split has a calibration part, which translations do not use.

    Example:
        >>> data = TranslationData.from_pairs([("one", "eins"), ("two", "zwei")] * 5)
        >>> data.facts()["n_train"], data.raw("valid")
        (9, ['two'])
    """

    domain = "flambeau_text.translation.domain:DOMAIN"

    def __init__(
        self,
        samples: Samples,
        split: Split,
        options: TranslationOptions | None = None,
        skipped: Mapping[str, int] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        if n := len(split.calibration):
            raise InputError(
                f"The split has a calibration part (pairs: {n:,}), which translation does not use. "
                "Put its pairs in train, valid or test."
            )
        self._samples = samples
        self._split = split
        self._options = options or TranslationOptions()
        self._skipped = Counter(skipped or {})
        self._notes = tuple(notes)
        self._facts: TranslationFacts | None = None

    def __repr__(self) -> str:
        parts = self._split.sizes()
        return f"TranslationData({len(self._samples):,} pairs: {parts})"

    # ------------------------------------------------------------ constructors

    @classmethod
    def from_files(
        cls,
        source: PathLike,
        target: PathLike,
        *,
        valid: Part = 0.1,
        test: Part = 0.0,
        split: Split | None = None,
        seed: int = 0,
        options: TranslationOptions | None = None,
    ) -> TranslationData:
        """Read two UTF-8 files (also .gz) with one sentence per line, aligned line by line.

        Languages that the options do not set are taken from the file names (``train.en``,
        ``train.de.gz``).

        Args:
            source: File with the source sentences.
            target: File with their translations.
            valid: Fraction or number of pairs drawn at random for validation, or two separate
                files.
            test: The same for the test part.
            split: The rows of each part, in place of a random split.
            seed: Seed of the random split.
            options: Options for tokenizing and filtering pairs.

        Raises:
            InputError: A file is missing or not UTF-8, the files have different numbers of lines,
                or all pairs are unusable; the message names the line.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed, default_valid=0.1)
        return cls(*read_files(source, target, request, options))

    @classmethod
    def from_df(
        cls,
        frame: Any,
        source: str | int | None = None,
        target: str | int | None = None,
        *,
        split: str | Split | None = None,
        valid: float = 0.1,
        test: float = 0.0,
        seed: int = 0,
        options: TranslationOptions | None = None,
    ) -> TranslationData:
        """Read the pairs of two columns of a data frame.

        Args:
            frame: A data frame (pandas, polars, pyarrow, …), or a mapping of column names to
                sequences.
            source: Name of the source column. Without names the columns are "source" and "target",
                else those named as the languages of ``options``, or as any two languages if the
                table has no others.
            target: Name of the target column.
            split: Name of a column with train, valid or test for each row; or a `Split`.
            valid: Fraction or number of pairs drawn at random for validation, if ``split`` is None.
            test: The same for the test part.
            seed: Seed of the random split.
            options: Options for tokenizing and filtering pairs.

        Raises:
            InputError: A column does not exist, it is unclear which columns to use, or a cell is
                not a text; the message names the row.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed, default_valid=0.1)
        return cls(*read_frame(frame, source, target, request, options))

    @classmethod
    def from_csv(
        cls,
        path: PathLike,
        source: str | int | None = None,
        target: str | int | None = None,
        *,
        split: str | Split | None = None,
        valid: float = 0.1,
        test: float = 0.0,
        seed: int = 0,
        options: TranslationOptions | None = None,
    ) -> TranslationData:
        """Read the pairs of two columns of a CSV file.

        The arguments are those of `from_df`. For a file without a header give the positions of the
        columns in place of their names: ``from_csv(path, 0, 1)``. Every cell is read as text, also
        "NA" and "3". A ``.tsv`` file is separated by tabs, and quotes in it are part of the
        sentences.
        """
        request = SplitRequest(valid, test, split, seed, default_valid=0.1)
        return cls(*read_csv_columns(Path(path), source, target, request, options))

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[Any],
        source: str | None = None,
        target: str | None = None,
        *,
        valid: float | Iterable[Any] = 0.1,
        test: float | Iterable[Any] = 0.0,
        split: Split | None = None,
        seed: int = 0,
        options: TranslationOptions | None = None,
    ) -> TranslationData:
        """Read pairs from an iterable.

        Args:
            pairs: Tuples (source, target), mappings, or the rows of a Hugging Face data set;
                iterated over once.
            source: Key of the source in mappings; by default the source language of the options,
                else "source", else the first of two keys.
            target: Key of the target in mappings; by default the target language of the options,
                else "target", else the second of two keys.
            valid: Fraction or number of pairs drawn at random for validation, or separate pairs.
            test: The same for the test part.
            split: The rows of each part, in place of a random split.
            seed: Seed of the random split.
            options: Options for tokenizing and filtering pairs.

        Raises:
            InputError: An item is not a pair of texts; the message has its index.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed, default_valid=0.1)
        return cls(*read_items(pairs, request, options, (source, target)))

    @classmethod
    def from_path(cls, path: PathLike, options: Mapping[str, Any]) -> TranslationData:
        """Read the data of ``flambeau fit PATH``; see `read_path`."""
        return cls(*read_path(Path(path), options))

    @classmethod
    def inputs_from_path(cls, path: Path) -> Sequence[str]:
        """Return the lines of a file, which ``flambeau predict MODEL PATH`` translates."""
        return read_lines(path)

    # ------------------------------------------------------------ content

    @property
    def samples(self) -> Samples:
        """All usable pairs, one row per pair."""
        return self._samples

    @property
    def split(self) -> Split:
        return self._split

    @property
    def options(self) -> TranslationOptions:
        """How pairs are tokenized and filtered."""
        return self._options

    @property
    def like(self) -> Path | None:
        return None if self._options.like is None else Path(self._options.like)

    @property
    def skipped(self) -> Mapping[str, int]:
        """Number of unusable pairs by reason; ``samples.problems`` lists the pairs."""
        return dict(self._skipped)

    @property
    def choices(self) -> Mapping[str, Any]:
        options = self._options
        given = {
            "tokenizer": options.tokenizer,
            "vocab_size": options.vocab_size,
            "shared_vocab": options.shared_vocab,
            "normalization": options.normalization,
        }
        if options.given_tokenizers is not None:
            given |= plan_values(options.given_tokenizers)
        return {key: value for key, value in given.items() if value is not None}

    @property
    def reading_options(self) -> Mapping[str, Any]:
        columns = self._options.columns
        return {} if columns is None else {"columns": list(columns)}

    def facts(self) -> TranslationFacts:
        if self._facts is None:
            self._facts = translation_facts(
                self._samples["source"], self._samples["target"], self._split, self._options
            )
        return self._facts

    def report(self) -> str:
        """Return lengths, unknown words, duplicates across parts and skipped pairs as text."""
        return report(self._samples, self._split, self._options, self._skipped, self._notes)

    def raw(self, part: str) -> list[str]:
        return self._texts("source", part)

    def references(self, part: str) -> list[str]:
        """Return the reference translations of ``part``, in the order of ``raw``."""
        return self._texts("target", part)

    def preview(self, row: int) -> Preview:
        source, target = self._samples["source"][row], self._samples["target"][row]
        return Preview(f"{source}\n→ {target}")

    def show(self, n: int = 8, *, part: str = "train") -> str:
        """Return pairs of ``part`` as text, at positions evenly spread over the part.

        Args:
            n: Number of pairs.
            part: "train", "valid" or "test".
        """
        rows = self._rows(part)
        at = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))
        lines: list[str] = []
        for row in rows[at].tolist():
            lines += [f"{row:>6}  {self._samples['source'][row]}"]
            lines += [f"        {self._samples['target'][row]}"]
        return "\n".join(lines)

    def show_predictions(
        self, predictions: Sequence[Any], *, part: str = "valid", path: PathLike
    ) -> None:
        """Save a figure of some predictions with their references; used by ``flambeau demo``.

        Args:
            predictions: One prediction per pair of ``part``, in the order of the part.
            part: The part that was predicted.
            path: File of the figure.

        Raises:
            InputError: The number of predictions differs from the number of pairs.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau_text.translation.contact_sheet import predictions_sheet

        sources, references = self.raw(part), self.references(part)
        if len(predictions) != len(sources):
            raise InputError(
                f"There are {len(predictions):,} predictions for {len(sources):,} {part} pairs. "
                f'Predict data.raw("{part}") and pass all predictions.'
            )
        predictions_sheet(sources, references, [str(each) for each in predictions], path)

    def show_attention(
        self, predictor: Predictor, *, part: str = "valid", path: PathLike, n: int = 2
    ) -> None:
        """Save a figure of the attention of the first translations; used by ``flambeau demo``.

        Args:
            predictor: Predictor of a model that returns attention.
            part: The part whose sources are translated.
            path: File of the figure.
            n: Number of translations.

        Raises:
            InputError: The model returns no attention.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau_text.translation.attention_plot import plot_attention
        from flambeau_text.translation.translate import translate

        plot_attention(translate(predictor, self.raw(part)[:n]), path)

    def subset(self, rows: Mapping[str, Sequence[int]]) -> TranslationData:
        split = Split.from_parts(rows)
        return TranslationData(self._samples, split, self._options, self._skipped, self._notes)

    # ------------------------------------------------------------ plan to parts

    def preprocessor(self, values: Mapping[str, Any]) -> TranslationPreprocessor:
        return fit_preprocessor(self.raw("train"), self.references("train"), values, self._options)

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        fitted = _checked(preprocessor)
        ids = torch.from_numpy(np.array(self._rows(part)))
        raw = self.raw(part)
        fitted.check_sources(raw, part)
        sources = fitted.source.encode_batch(raw)
        texts = self.references(part)
        targets = fitted.target.encode_batch(texts)
        pairs = EncodedPairs(source_rows(sources), target_rows(targets), texts, ids)
        dropout = values.get("bpe_dropout", 0.0)
        if part != "train" or not dropout:
            return pairs
        tokenizers = (fitted.source, fitted.target)
        return PairsWithDropout(pairs, raw, [BpeDropout(each, dropout) for each in tokenizers])

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        fitted = _checked(preprocessor)
        shared = fitted.source is fitted.target
        return {
            "source_vocab": len(fitted.source),
            "target_vocab": len(fitted.target),
            "tie": "3way" if shared else "2way",
            "config": values["model_config"],
        }

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return {
            "target": _checked(preprocessor).target.as_json(),
            "label_smoothing": values["label_smoothing"],
            "bleu_tokenizer": values["bleu_tokenizer"],
            "teacher_forcing": values["teacher_forcing"],
            "decoding": values["decoding"],
        }

    # ------------------------------------------------------------ private

    def _rows(self, part: str) -> np.ndarray:
        rows = self._split.part(part)
        if not len(rows):
            raise InputError(
                f"There are no {part} pairs. Pass {part}= to the constructor of the data: a "
                "fraction, or separate pairs."
            )
        return rows

    def _texts(self, side: str, part: str) -> list[str]:
        texts = self._samples[side]
        return [texts[row] for row in self._split.part(part).tolist()]


def _checked(preprocessor: Preprocessor) -> TranslationPreprocessor:
    if not isinstance(preprocessor, TranslationPreprocessor):
        raise ArgumentError(
            f"TranslationData needs a TranslationPreprocessor, not a {type(preprocessor).__name__}."
        )
    return preprocessor
