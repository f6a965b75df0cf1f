"""``Data``: an immutable object that holds the data and every choice about them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from flambeau.data.facts import Facts
from flambeau.data.loader import Dataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.reading import Reading
from flambeau.data.split import PARTS, Rows, Split
from flambeau.data.transform import Transform
from flambeau.errors import InputError

if TYPE_CHECKING:
    from flambeau.data.preview import Preview
    from flambeau.report.interpretation import Interpretation
    from flambeau.report.page import Section

_IDENTIFYING_FACTS = (
    "class_names",
    "class_counts",
    "target_distinct",
    "target_min",
    "target_max",
)


class Data(ABC):
    """The base class of every domain's data. Immutable: a change returns a new object.

    Order of use: the plan's rules read ``facts``; ``preprocessor`` is fitted with the plan's
    values; ``dataset``, ``model_arguments`` and ``task_arguments`` take the preprocessor and the
    values; a data set creates its loader.
    """

    domain: ClassVar[str]
    """Location of the domain record, written as an entry point: ``"package.module:DOMAIN"``."""

    @property
    @abstractmethod
    def split(self) -> Split:
        """The samples of the train, validation, test and calibration parts.

        A property, so that a dataclass can store the split in a field of another name (``rows``).
        """

    @property
    def choices(self) -> Mapping[str, Any]:
        """Plan values that the user set when creating the data; their source is "user"."""
        return {}

    @property
    def like(self) -> Path | None:
        """Folder of the export whose options were used to read these data; None without one.

        The constructor's argument ``like`` fills the options that the user does not set (class
        names, kind of targets, reading options) from the export's record, with
        ``flambeau.artefact.read_like``. A learner on these data keeps the export's preprocessor.
        """
        return None

    @property
    def readings(self) -> tuple[Reading, ...]:
        """How labels, folders and columns were interpreted if they were ambiguous."""
        return ()

    @property
    def reading_options(self) -> Mapping[str, Any]:
        """JSON values of the options with which other data for the same model must be read.

        An export records these options if they do not follow from its preprocessor and task: a
        separator, names of columns. ``flambeau.artefact.read_like.reading_options`` returns them
        for the argument ``like``.
        """
        return {}

    @property
    def issued_warnings(self) -> Collection[str]:
        """Codes of the warnings issued when the data were created or read.

        The doctor does not repeat them before a fit.
        """
        return ()

    @abstractmethod
    def facts(self) -> Facts:
        """Return measurements of the train samples only; computed once."""

    @abstractmethod
    def preprocessor(self, values: Mapping[str, Any]) -> Preprocessor:
        """Return a preprocessor fitted on train samples, with the plan's values (key → value)."""

    @abstractmethod
    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        """Return the data set of ``part`` ("train", "valid", "test" or "calibration").

        ``flambeau evaluate`` has an export's preprocessor but no plan: take the shape and dtype of
        a sample from the preprocessor; any key may be missing from ``values``.
        """

    @abstractmethod
    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return JSON arguments of the domain's model builders (channels, outputs, size).

        Args:
            preprocessor: The fitted preprocessor, which has the vocabulary, the cardinalities or
                the number of channels.
            values: The plan's values.
        """

    @abstractmethod
    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return JSON arguments of the task builder (class names); see `model_arguments`."""

    @abstractmethod
    def raw(self, part: str) -> Sequence[Any]:
        """Return the raw inputs of ``part``, in the form that ``predict`` takes."""

    @classmethod
    def inputs_from_path(cls, path: Path) -> Sequence[Any]:
        """Return the raw inputs that ``flambeau predict MODEL PATH`` reads from ``path``.

        By default the path itself is the only input. A class whose files hold many samples reads
        them here; labels must not be required. The command numbers the inputs from 1; a blank text
        gets no prediction, but the numbering includes it.
        """
        return [str(path)]

    @classmethod
    def tables_from_path(
        cls, path: Path, options: Mapping[str, Any] = MappingProxyType({})
    ) -> Iterator[Any] | None:
        """Return the inputs in a table file in pieces; None for other files, which is the default.

        Args:
            path: The file.
            options: The ``reading_options`` of the data on which the model was trained.

        ``flambeau predict`` writes the predictions for a piece before it reads the next one, so
        that the file may be larger than memory. Each piece is what ``table_rows`` of a
        preprocessor that is a ``PredictsTables`` returns unchanged, and has ``column(name)``, which
        returns one of its columns as an Arrow array.
        """
        return None

    def source_rows(self, rows: Rows) -> Rows:
        """Return the numbers of samples in the source, given those in ``split``.

        They differ if samples of the source were left out, such as rows without a target.
        """
        return rows

    def groups(self, part: str) -> Sequence[Any] | None:
        """Return the group of each sample of ``part``, if samples of a group depend on each other.

        Rows of one person or one machine are less different than rows of two. Intervals count a
        group as one sample.
        """
        return None

    def subset(self, rows: Mapping[str, Sequence[int]]) -> Data:
        """Return the data with only the given samples in each part.

        Used for quick trials and learning curves. The conformance kit removes validation samples
        with it: facts and preprocessor must not change, as they are measured on train only.

        Args:
            rows: Part → row numbers, numbered as in ``split``. Train and valid are required; test
                and calibration are empty by default: ``Split.from_parts(rows)``.

        Raises:
            InputError: The class does not implement it.
        """
        raise InputError(
            f"{type(self).__name__} does not implement subset(rows). Create the data from fewer "
            "samples, or define the method in the class."
        )

    def with_split(self, split: Split) -> Data:
        """Return the same samples in other parts, in the row numbers of ``split``.

        Unlike ``subset``, it may move any sample to any part.

        Raises:
            InputError: The class does not implement it.
        """
        raise InputError(
            f"{type(self).__name__} cannot be split anew, so it has no folds: it does not "
            "implement with_split(split). Create the data of each fold yourself, or define the "
            "method in the class."
        )

    def split_arguments(self, rows: Rows) -> Mapping[str, Any]:
        """Return how samples depend on each other, as arguments of ``Split.folds``.

        Args:
            rows: The samples to split, in row numbers of ``split``.

        Returns:
            Some of "stratify", "groups", "times" (one entry for each of ``rows``) and "embargo".
        """
        return {}

    def folds(self, k: int | Sequence[Split] = 5, *, seed: int = 0) -> list[Data]:
        """Return the data of each fold of a cross-validation over the train and valid samples.

        Each has a train and a valid part; together the valid parts contain every sample once.
        Classes, groups and times are obeyed as by the random split: with times the folds go forward
        (``Split.folds``). Samples of the test and calibration parts are in no fold.

        Args:
            k: Number of folds; or a split for each, in the row numbers of ``split``.
            seed: The same seed gives the same folds on every machine.

        Raises:
            ArgumentError: ``k`` is neither a number nor splits.
            InputError: The data cannot be split anew.
            SplitError: There are too few samples, groups or times; or a given split contains
                samples of test or calibration, or has no validation samples.
        """
        from flambeau.data.fold_splits import fold_splits

        rows = np.sort(np.concatenate([self.split.train, self.split.valid]))
        found = fold_splits(rows, k, self.split_arguments(rows), seed)
        return [self.with_split(each) for each in found]

    def is_loaded(self, part: str, values: Mapping[str, Any]) -> bool:
        """Return whether ``dataset(part)`` can return without reading or converting samples.

        Before a fit the doctor checks the test and calibration parts only if this is True, because
        a fit does not need these parts and should not have to read them.

        Args:
            part: "test" or "calibration".
            values: The plan's values.
        """
        return False

    def transforms(self, values: Mapping[str, Any]) -> Sequence[Transform]:
        """Return the augmentations of training batches that the plan's values select."""
        return ()

    def fingerprint(self) -> dict[str, Any]:
        """Return values that identify these data: a run can only be resumed on the same data.

        Classes, targets and the row numbers of each part, in a form that a message can show. Files
        are identified only by their number and order, so that a folder may be moved. The rows of a
        user-defined loader are unknown and not compared.
        """
        facts = self.facts()
        found: dict[str, Any] = {
            name: value for name, value in facts.items() if name in _IDENTIFYING_FACTS
        }
        if "loader_batch_size" in facts:
            return found
        for part in PARTS:
            rows = self.split.part(part)
            found[f"{part} rows"] = f"{len(rows):,} (digest {digest(rows.tobytes())})"
        return found

    def report(self) -> str:
        """Return a summary as text: counts, sizes, classes, samples that could not be read."""
        return "\n".join(f"{name}: {value}" for name, value in self.facts().items())

    def baselines(self, found: Interpretation) -> Mapping[str, Mapping[str, float]] | None:
        """Return the scores of simple models on the samples of a report, by name of the model.

        With None (default) a report fits a constant prediction and a linear model.
        """
        return None

    def report_sections(self, found: Interpretation) -> Sequence[Section]:
        """Return further sections of a report's page."""
        return ()

    def preview(self, row: int) -> Preview | None:
        """Return the preview of a sample for reports; with None they show only its row number.

        Args:
            row: Row number, as in ``split``.
        """
        return None


def digest(content: bytes) -> str:
    """Return a short hash of ``content``."""
    return hashlib.blake2b(content, digest_size=6).hexdigest()


def select_values(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return the plan's values of ``keys``; keys that the plan lacks are omitted."""
    return {key: values[key] for key in keys if key in values}


def head_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"dropout": p}`` for ``model_arguments`` if the plan sets it, else ``{}``.

    The plan's ``head`` is ``{"dropout": p}``; without it the builder's default applies.
    """
    head = values.get("head")
    dropout = cast("Mapping[str, Any]", head).get("dropout") if isinstance(head, Mapping) else None
    return {"dropout": dropout} if dropout else {}
