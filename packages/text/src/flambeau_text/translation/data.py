"""``TranslationData``: sentence pairs and every choice about them, in one immutable object."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from flambeau.data.data import Data, Facts
from flambeau.data.loader import Dataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau.errors import ArgumentError, InputError
from flambeau_text.translation.encoded import EncodedPairs, reference_rows, source_rows, target_rows
from flambeau_text.translation.facts import translation_facts
from flambeau_text.translation.fitting import KEYS, fit_preprocessor
from flambeau_text.translation.options import TranslationOptions
from flambeau_text.translation.pairs import Pairs
from flambeau_text.translation.preprocess import TranslationPreprocessor
from flambeau_text.translation.report import report

if TYPE_CHECKING:
    from flambeau.artefact.predictor import Predictor

PathLike: TypeAlias = str | os.PathLike[str]
Part: TypeAlias = float | tuple[Any, Any]
"""A share of the rows, or a part of its own: two files, or two lists."""


class TranslationData(Data):
    """Sentence pairs, checked, filtered and split.

    Build it with ``from_files``, ``from_df``, ``from_csv`` or ``from_pairs``.

    Args:
        samples: One row a pair: "source", "target" and "place" (where it stands, for messages).
        split: Which rows are train, valid and test.
        options: How pairs are read.
        left_out: Pairs that could not be used, by reason.

    Example:
        >>> data = TranslationData.from_pairs([("one", "eins"), ("two", "zwei")] * 5)
        >>> data.facts()["n_train"], data.raw("valid")
        (8, ['two', 'one'])
    """

    domain = "flambeau_text.translation.domain:DOMAIN"

    def __init__(
        self,
        samples: Samples,
        split: Split,
        options: TranslationOptions | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self._samples = samples
        self._split = split
        self._options = options or TranslationOptions()
        self._left_out = Counter(left_out or {})
        self._facts: Facts | None = None
        self._fitted: dict[tuple[Any, ...], TranslationPreprocessor] = {}

    def __repr__(self) -> str:
        parts = ", ".join(f"{len(self._split.part(part)):,} {part}" for part in PARTS)
        return f"TranslationData({len(self._samples):,} pairs: {parts})"

    # ------------------------------------------------------------ building

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
        """Two files of a sentence a line, in UTF-8, where line n belongs to line n; .gz too.

        Languages are read from the files' endings (``train.en``, ``train.de.gz``) where the
        options do not say them.

        Args:
            source: What is to be translated.
            target: Its translation.
            valid: Share drawn for valid, or two files of its own.
            test: Share drawn for test, or two files of its own.
            split: Row numbers instead.
            seed: Of the draw.
            options: Tokenizer, limits and what else.

        Raises:
            InputError: A file is missing or not UTF-8 (with its line), the files have different
                numbers of lines (with the first gap), or no pair can be used.
            SplitError: The parts cannot be formed.
        """
        from flambeau_text.translation import entries

        return cls(*entries.of_files(source, target, (valid, test, split, seed), options))

    @classmethod
    def from_df(
        cls,
        frame: Any,
        source: str = "source",
        target: str = "target",
        *,
        split: str | Split | None = None,
        valid: float = 0.1,
        test: float = 0.0,
        seed: int = 0,
        options: TranslationOptions | None = None,
    ) -> TranslationData:
        """Pairs in two columns of a data frame.

        Args:
            frame: A pandas frame, or any mapping of column names to sequences.
            source: The column of what is to be translated.
            target: The column of its translations.
            split: The column that says train, valid or test; or the split.
            valid: Share of valid where no column says.
            test: Share of test, likewise.
            seed: Of the draw.
            options: Tokenizer, limits and what else.

        Raises:
            InputError: A column does not exist, or a cell is no text; with its row.
            SplitError: The parts cannot be formed.
        """
        from flambeau_text.translation import entries

        table = entries.Table(frame, source, target, "frame")
        return cls(*entries.of_table(table, (valid, test, split, seed), options))

    @classmethod
    def from_csv(
        cls,
        path: PathLike,
        source: str = "source",
        target: str = "target",
        *,
        split: str | Split | None = None,
        valid: float = 0.1,
        test: float = 0.0,
        seed: int = 0,
        options: TranslationOptions | None = None,
    ) -> TranslationData:
        """Pairs in two columns of a CSV file with a header (tabs where it ends in .tsv).

        See `from_df`; every cell is read as text, also one that reads "NA" or "3".
        """
        from flambeau_text.translation import entries

        table = entries.Table(entries.read_csv(path), source, target, f"{Path(path).name}")
        return cls(*entries.of_table(table, (valid, test, split, seed), options))

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[Any],
        *,
        valid: float | Iterable[Any] = 0.1,
        test: float | Iterable[Any] = 0.0,
        split: Split | None = None,
        seed: int = 0,
        options: TranslationOptions | None = None,
    ) -> TranslationData:
        """Pairs of any iterable: tuples of two texts, mappings of two, Hugging Face data sets.

        Args:
            pairs: Read once.
            valid: Share drawn for valid, or pairs of its own.
            test: Share drawn for test, or pairs of its own.
            split: Row numbers instead.
            seed: Of the draw.
            options: Tokenizer, limits and what else.

        Raises:
            InputError: An item is no pair of texts; with its number.
            SplitError: The parts cannot be formed.
        """
        from flambeau_text.translation import entries

        return cls(*entries.of_pairs(pairs, (valid, test, split, seed), options))

    @classmethod
    def from_path(cls, path: PathLike, options: Mapping[str, Any]) -> TranslationData:
        """What ``flambeau fit PATH`` reads: see `entries.of_path`."""
        from flambeau_text.translation import entries

        return cls(*entries.of_path(Path(path), options))

    @classmethod
    def items_from_path(cls, path: Path) -> Sequence[str]:
        """What ``flambeau predict MODEL PATH`` answers for: each line of the file, in its place."""
        from flambeau_text.translation.lines import read_lines

        return read_lines(path)

    # ------------------------------------------------------------ what it holds

    @property
    def samples(self) -> Samples:
        """What was found, a row a pair."""
        return self._samples

    @property
    def split(self) -> Split:
        return self._split

    @property
    def options(self) -> TranslationOptions:
        """How pairs are read."""
        return self._options

    @property
    def left_out(self) -> Mapping[str, int]:
        """Pairs that could not be used, by reason; ``samples.problems`` names each."""
        return dict(self._left_out)

    @property
    def choices(self) -> Mapping[str, Any]:
        given = {
            "tokenizer": self._options.tokenizer,
            "vocab_size": self._options.vocab_size,
            "shared_vocab": self._options.shared_vocab,
        }
        return {key: value for key, value in given.items() if value is not None}

    def facts(self) -> Facts:
        if self._facts is None:
            self._facts = translation_facts(
                self._samples["source"], self._samples["target"], self._split, self._options
            )
        return self._facts

    def report(self) -> str:
        """Lengths, languages, doubles across the parts, unknown words, what was left out."""
        return report(self._samples, self._split, self._options, self._left_out)

    def raw(self, part: str) -> list[str]:
        return self._texts("source", part)

    def references(self, part: str) -> list[str]:
        """The translations of ``part``, in the order of ``raw``."""
        return self._texts("target", part)

    def preview(self, row: int) -> Preview:
        source, target = self._samples["source"][row], self._samples["target"][row]
        return Preview(f"{source}\n→ {target}")

    def show(self, n: int = 8, *, part: str = "train") -> str:
        """A few pairs of ``part``, the same ones every time, drawn over the whole part.

        Args:
            n: How many.
            part: "train", "valid" or "test".
        """
        rows = self._rows(part)
        places = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))
        lines: list[str] = []
        for row in rows[places].tolist():
            lines += [f"{row:>6}  {self._samples['source'][row]}"]
            lines += [f"        {self._samples['target'][row]}"]
        return "\n".join(lines)

    def show_predictions(
        self, predictions: Sequence[Any], *, part: str = "valid", path: PathLike
    ) -> None:
        """Writes a picture of a few answers beside what is true; for ``flambeau demo``.

        Args:
            predictions: One a pair of ``part``, in its order.
            part: What was predicted.
            path: Where to.

        Raises:
            InputError: There are not as many predictions as pairs.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau_text.translation.sheet import draw_answers

        sources, references = self.raw(part), self.references(part)
        if len(predictions) != len(sources):
            raise InputError(
                f"{len(predictions):,} predictions for {len(sources):,} {part} pairs. Predict "
                f'data.raw("{part}") and pass all of them.'
            )
        draw_answers(sources, references, [str(each) for each in predictions], path)

    def show_attention(
        self, predictor: Predictor, *, part: str = "valid", path: PathLike, n: int = 2
    ) -> None:
        """Writes a picture of what each word of the first answers looked at; for ``flambeau demo``.

        Args:
            predictor: Of a model that tells its attention.
            part: Whose sources are translated.
            path: Where to.
            n: How many.

        Raises:
            InputError: The model does not tell where it looked.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau_text.translation.heatmap import plot_attention
        from flambeau_text.translation.translate import translate

        plot_attention(translate(predictor, self.raw(part)[:n]), path)

    def subset(self, rows: Mapping[str, Sequence[int]]) -> TranslationData:
        parts = {part: np.asarray(rows.get(part, ()), dtype=np.int64) for part in PARTS}
        split = Split.given(parts["train"], parts["valid"], parts["test"])
        return TranslationData(self._samples, split, self._options, self._left_out)

    # ------------------------------------------------------------ realising a plan

    def preprocessor(self, values: Mapping[str, Any]) -> TranslationPreprocessor:
        key = tuple(values[name] for name in KEYS)
        if key not in self._fitted:
            sources, targets = self.raw("train"), self.references("train")
            self._fitted[key] = fit_preprocessor(sources, targets, values, self._options)
        return self._fitted[key]

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        if not isinstance(preprocessor, TranslationPreprocessor):
            raise ArgumentError(
                f"TranslationData needs a TranslationPreprocessor, not a "
                f"{type(preprocessor).__name__}."
            )
        ids = torch.from_numpy(np.array(self._rows(part)))
        raw = self.raw(part)
        preprocessor.check_sources(raw, part)
        sources = preprocessor.source.encode_all(raw)
        texts = self.references(part)
        targets = preprocessor.target.encode_all(texts)
        return EncodedPairs(source_rows(sources), target_rows(targets), reference_rows(texts), ids)

    def model_arguments(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        prepared = self.preprocessor(values)
        shared = prepared.source is prepared.target
        return {
            "source_vocab": len(prepared.source),
            "target_vocab": len(prepared.target),
            "tie": "3way" if shared else "2way",
            "size": values["size"],
        }

    def task_arguments(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return {
            "target": self.preprocessor(values).target.as_json(),
            "label_smoothing": values["label_smoothing"],
            "teacher_forcing": values["teacher_forcing"],
            "decoding": values["decoding"],
            "lowercase": self._options.lowercase,
        }

    # ------------------------------------------------------------ inside

    def _rows(self, part: str) -> np.ndarray:
        rows = self._split.part(part)
        if not len(rows):
            raise InputError(
                f"There are no {part} pairs. Give {part}= where the data are built, a share or "
                "files of its own."
            )
        return rows

    def _texts(self, side: str, part: str) -> list[str]:
        texts = self._samples[side]
        return [texts[row] for row in self._split.part(part).tolist()]


def joined(pairs: Mapping[str, Pairs]) -> tuple[Pairs, dict[str, np.ndarray]]:
    """The pairs of several parts one after the other, and the rows of each."""
    together, rows = Pairs(), {}
    for part, each in pairs.items():
        rows[part] = np.arange(len(together), len(together) + len(each))
        together = together.extended(each)
    return together, rows
