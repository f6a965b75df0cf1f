"""The constructors of ``TextData``: from tables, files, folders, arrays and data sets."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

from flambeau.data.data import Data
from flambeau.data.ordered_names import ordered_columns
from flambeau.data.reading import Reading
from flambeau.data.samples import Samples
from flambeau.data.split import Split
from flambeau.data.split_request import SplitRequest
from flambeau.data.tables import read_csv
from flambeau.data.targets import Targets
from flambeau.errors import explains_arguments
from flambeau_text.classification import sources
from flambeau_text.classification.assemble import assemble
from flambeau_text.classification.columns import TextTable
from flambeau_text.classification.data_sets import read_datasets
from flambeau_text.classification.folders import read_folder
from flambeau_text.classification.options import TextOptions
from flambeau_text.classification.paths import read_path
from flambeau_text.part_column import read_frames

PathLike: TypeAlias = str | os.PathLike[str]
_FILES = (str, os.PathLike)


def _option_hint(name: str) -> str:
    known = name in TextOptions.__dataclass_fields__ and name != "encoder"
    return f"Set it with options=TextOptions({name}=…)." if known else ""


@explains_arguments(_option_hint)
class TextDataConstructors(Data):
    """The class methods that build ``TextData``."""

    @abstractmethod
    def __init__(
        self,
        samples: Samples,
        targets: Targets,
        split: Split,
        options: TextOptions,
        notes: Sequence[str] = (),
        readings: Sequence[Reading] = (),
    ) -> None: ...

    @classmethod
    def from_df(
        cls,
        frame: Any,
        text: str | Sequence[str] | None = None,
        label: str | Sequence[str] | None = None,
        *,
        valid: Any = 0.2,
        test: Any = 0.0,
        calibration: Any = 0.0,
        split: str | Split | bool | None = None,
        seed: int = 0,
        options: TextOptions | None = None,
    ) -> Self:
        """Read the texts and labels in a data frame.

        Args:
            frame: A data frame (pandas, polars, pyarrow, …), or a mapping of column names to
                sequences.
            text: Name of the column of texts, or of the two columns of pairs of texts; None finds a
                column with a usual name ("text", "review", …), else the only one with several words
                per cell.
            label: Name of the column of labels; None finds one with a usual name ("label",
                "target", …), else the only other column. Several columns are regression targets,
                or labels if all values are 0 or 1.
            valid: Share or number of texts for validation, drawn at random and stratified by
                class; or a frame with them. Copies of a text are in one part.
            test: The same for the final test.
            calibration: The same for ``learner.calibrate``.
            split: Name of the column with the part of each row (train, valid, test, calibration;
                or True for valid), or a ``Split``. None uses the column "split" or "is_valid" if
                there is one; False uses no column.
            seed: Seed of the random split.
            options: Further options.

        Raises:
            InputError: A column does not exist, a label is missing, or a cell is not a text; the
                message names the row.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed, calibration=calibration)
        tables = read_frames(frame, request)
        table, given = sources.join_tables(tables)
        orders = ordered_columns(frame, table.names)
        source = TextTable(table, text, label, orders)
        return cls(*sources.assemble_table(source, given, request, options or TextOptions()))

    @classmethod
    def from_csv(
        cls,
        path: PathLike,
        text: str | Sequence[str] | None = None,
        label: str | Sequence[str] | None = None,
        *,
        valid: float | PathLike = 0.2,
        test: float | PathLike = 0.0,
        calibration: float | PathLike = 0.0,
        split: str | Split | bool | None = None,
        seed: int = 0,
        options: TextOptions | None = None,
    ) -> Self:
        """Read the texts and labels in a CSV or TSV file (also .gz); arguments as for `from_df`.

        Labels are read as int if all are whole numbers, as float if all are numbers, else as text;
        codes such as 007 are text. ``valid``, ``test`` and ``calibration`` may be files.
        """
        request = SplitRequest(valid, test, split, seed, calibration=calibration)
        options = options or TextOptions()
        files = {"train": path, **request.separate(*_FILES)}
        table, given = sources.join_tables({part: read_csv(file) for part, file in files.items()})
        # Joined first, so that a label is of one kind in all files.
        source = sources.csv_source(table, text, label, options)
        return cls(*sources.assemble_table(source, given, request, options))

    @classmethod
    def from_jsonl(
        cls,
        path: PathLike,
        text: str | Sequence[str] | None = None,
        label: str | Sequence[str] | None = None,
        *,
        valid: float | PathLike = 0.2,
        test: float | PathLike = 0.0,
        calibration: float | PathLike = 0.0,
        split: str | Split | bool | None = None,
        seed: int = 0,
        options: TextOptions | None = None,
    ) -> Self:
        """Read a file with a JSON object per line; arguments as for `from_csv`."""
        request = SplitRequest(valid, test, split, seed, calibration=calibration)
        files = {"train": path, **request.separate(*_FILES)}
        tables = {part: sources.read_json_lines(Path(file)) for part, file in files.items()}
        table, given = sources.join_tables(tables)
        source = TextTable(table, text, label)
        return cls(*sources.assemble_table(source, given, request, options or TextOptions()))

    @classmethod
    def from_folder(
        cls,
        path: PathLike,
        *,
        valid: float = 0.2,
        test: float = 0.0,
        calibration: float = 0.0,
        split: Split | None = None,
        seed: int = 0,
        options: TextOptions | None = None,
    ) -> Self:
        """Read a folder with a sub-folder per class, or with such folders in train, valid and test.

        Args:
            path: ``path/pos/1.txt`` or ``path/train/pos/1.txt``; files in UTF-8, also ``.gz``.
            valid: Share or number of texts for validation, if there is no valid folder.
            test: The same for the test part.
            calibration: The same for ``learner.calibrate``.
            split: The rows of each part, in the order of part, class and file name.
            seed: Seed of the random split.
            options: Further options; with ``classes`` other folders are left out.

        Raises:
            InputError: The folder does not exist or has no class folders, or a file is not UTF-8;
                the message names the line.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed, calibration=calibration)
        options = options or TextOptions()
        return cls(*assemble(read_folder(Path(path), options), request, options))

    @classmethod
    def from_arrays(
        cls,
        texts: Any,
        labels: Any,
        *,
        valid: float | tuple[Any, Any] = 0.2,
        test: float | tuple[Any, Any] = 0.0,
        calibration: float | tuple[Any, Any] = 0.0,
        split: Split | None = None,
        seed: int = 0,
        sample_weight: Any = None,
        group: Any = None,
        options: TextOptions | None = None,
    ) -> Self:
        """Use texts and labels in memory.

        Args:
            texts: A sequence of texts: a list, an array, a column; or of pairs of texts.
            labels: One per text, of any type that `read_labels` accepts.
            valid: A share or number, or ``(texts, labels)``.
            test: The same for the test part.
            calibration: The same for ``learner.calibrate``.
            split: The rows of each part, in place of a random split.
            seed: Seed of the random split.
            sample_weight: Weight of each text of ``texts`` in loss and metrics, ``(n,)``. Texts of
                parts that are given have weight 1.
            group: Group of each text, ``(n,)``: drawn parts keep each group in one part.
            options: Further options.

        Raises:
            InputError: The lengths differ, a label is missing, or an entry is not a text.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, split, seed, calibration=calibration)
        options = options or TextOptions()
        found, options = sources.read_arrays(texts, labels, request, options, sample_weight, group)
        return cls(*assemble(found, request, options))

    @classmethod
    def from_datasets(
        cls,
        train: Any,
        *,
        valid: Any = 0.2,
        test: Any = 0.0,
        calibration: Any = 0.0,
        seed: int = 0,
        text: str | Sequence[str] | None = None,
        label: str | None = None,
        options: TextOptions | None = None,
    ) -> Self:
        """Use data sets of Hugging Face, or other sequences of pairs or mappings.

        Args:
            train: A data set, a list of mappings or of pairs ``(text, label)``; or a mapping of
                data sets by part, such as a ``DatasetDict``.
            valid: A share or number, or a data set.
            test: The same for the test part.
            calibration: The same for ``learner.calibrate``.
            seed: Seed of the random split.
            text: Key of the text, or of both texts of pairs; None finds it.
            label: Key of the label; None finds it.
            options: Further options.

        Raises:
            ArgumentError: A data set cannot be read by index, or its samples are neither mappings
                nor pairs.
            InputError: A column does not exist, or two parts number their classes differently.
            SplitError: The parts cannot be formed.
        """
        request = SplitRequest(valid, test, None, seed, calibration=calibration)
        options = (options or TextOptions()).updated({"text": text, "label": label})
        table, given, options = read_datasets(train, request, options)
        return cls(*sources.assemble_table(TextTable(table), given, request, options))

    @classmethod
    def from_path(cls, path: PathLike, options: Mapping[str, Any]) -> Self:
        """Read the path of ``flambeau fit PATH``; see `read_path`."""
        return cls(*read_path(Path(path), options))
