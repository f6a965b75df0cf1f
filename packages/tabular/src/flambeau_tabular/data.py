"""``TabularData``: the rows of a table, their targets and all data choices, in one object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.data.data import digest, select_values
from flambeau.data.loader import Dataset
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.preview import Preview
from flambeau.data.reading import Reading, readings_as_facts
from flambeau.data.split import PARTS, Rows, Split
from flambeau.data.targets import Targets
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau.wording import name_some
from flambeau_tabular.column_kind import ColumnKind
from flambeau_tabular.constructors import TabularDataConstructors
from flambeau_tabular.csv_options import CsvOptions
from flambeau_tabular.facts import TabularFacts
from flambeau_tabular.frame_rows import FrameRows, TablePiece
from flambeau_tabular.model_arguments import model_arguments
from flambeau_tabular.options import NUMBER_TASKS, TabularOptions, TaskName, kinds_of_export
from flambeau_tabular.preprocess import OFFSET, TabularPreprocessor
from flambeau_tabular.recognise import is_table_file
from flambeau_tabular.target_columns import SEVERAL, TARGET, TargetColumns

if TYPE_CHECKING:
    from flambeau.report.interpretation import Interpretation
    from flambeau.report.page import Section
    from flambeau_tabular.columns import Frame
    from flambeau_tabular.predicted_frame import LabelType
    from flambeau_tabular.report.baselines import Baselines
    from flambeau_tabular.structure import Structure

_CELLS = 8  # of a row in a report


class TabularData(TabularDataConstructors):
    """Rows of a table with their targets, split into parts.

    Build it with ``from_df``, ``from_csv``, ``from_parquet`` or ``from_arrays``.

    Args:
        frame: The table, without its targets; the columns of time, group and weight included.
        targets: The targets, one per row; by the name of their column if they are of several
            kinds, with -100 or NaN in rows without this target.
        split: The rows of the train, validation, test and calibration parts.
        options: How the table is read.
        target_names: Names of the target columns.
        structure: Time, group and weight of each row.
        notes: Notes for the report.
        label_type: Type of the class labels in the target column, or in each of several; None if
            they are text.
        kept: Row numbers of ``frame`` in the table of the user, if rows were left out.

    Example:
        >>> table = {"age": [*range(40)], "job": ["clerk", "nurse"] * 20}
        >>> data = TabularData.from_df({**table, "income": ["low", "high"] * 20}, "income")
        >>> {name: column.kind for name, column in data.columns.items()}
        {'age': 'number', 'job': 'category'}
    """

    domain = "flambeau_tabular.domain:DOMAIN"

    def __init__(
        self,
        frame: Frame,
        targets: Targets | Mapping[str, Targets],
        split: Split,
        options: TabularOptions,
        *,
        target_names: Sequence[str],
        structure: Structure | None = None,
        notes: Sequence[str] = (),
        label_type: LabelType | Mapping[str, LabelType] | None = None,
        kept: Rows | None = None,
    ) -> None:
        self._frame = frame
        by_name = {TARGET: targets} if isinstance(targets, Targets) else targets
        compact = {name: each.compact() for name, each in by_name.items()}
        self._targets = TargetColumns(compact, options)
        self._split = split
        self._options = options
        self._target_names = tuple(target_names)
        if structure is None:
            from flambeau_tabular.structure import Structure

            structure = Structure()
        self._structure = structure
        self._notes = tuple(notes)
        self._label_type: LabelType | Mapping[str, LabelType] | None = label_type
        self._kept = kept
        self._kinds: dict[str, ColumnKind] | None = None
        self._facts: TabularFacts | None = None

    def __repr__(self) -> str:
        parts = self._split.sizes()
        return f"TabularData({len(self._frame):,} rows, {self._targets.kind}: {parts})"

    # ------------------------------------------------------------ content

    @property
    def frame(self) -> Frame:
        """The table without its targets."""
        return self._frame

    @property
    def targets(self) -> Targets:
        """The targets, one per row of ``frame``; class numbers in a small type.

        Raises:
            InputError: There are targets of several kinds.
        """
        return self._targets.single

    @property
    def several_targets(self) -> Mapping[str, Targets]:
        """The targets of several kinds by name; empty if there is one kind."""
        return {} if self._targets.is_single else dict(self._targets.by_name)

    @property
    def structure(self) -> Structure:
        """Time, group and weight of each row."""
        return self._structure

    @property
    def split(self) -> Split:
        return self._split

    @property
    def options(self) -> TabularOptions:
        """The options with which the table is read."""
        return self._options

    @property
    def like(self) -> Path | None:
        return None if self._options.like is None else Path(self._options.like)

    @property
    def columns(self) -> Mapping[str, ColumnKind]:
        """The kind of each column with its reason, from the train rows."""
        if self._kinds is None and self._options.like is not None:
            self._kinds = kinds_of_export(self._options.like)
        if self._kinds is None:
            from flambeau_tabular.columns import infer_kinds

            unused = [*self._options.drop, *self._not_inputs()]
            frame, train = self._frame.drop(unused), self._counted().train
            self._kinds = infer_kinds(frame, train, self._options.kinds or {})
        return self._kinds

    @cached_property
    def _cells(self) -> str | None:
        from flambeau_tabular.columns.cell_digest import cell_digest

        return cell_digest(self._frame, list(self.columns))

    def _not_inputs(self) -> list[str]:
        roles = self._options.roles
        return [name for role, name in roles.items() if role != "time"]

    @property
    def choices(self) -> Mapping[str, Any]:
        given = {
            "task": self._options.task,
            "scaling": self._options.scaling,
            "min_count": self._options.min_count,
        }
        if self._options.like is not None:
            given |= {"scaling": None, "min_count": None}  # those of the export's preprocessor
        return {key: value for key, value in given.items() if value is not None}

    @property
    def readings(self) -> tuple[Reading, ...]:
        targets = self._targets.by_name.values()
        return (*(found for each in targets for found in each.readings), *self._frame.readings)

    @property
    def reading_options(self) -> Mapping[str, Any]:
        names = self._target_names
        target = names[0] if len(names) == 1 else list(names)
        return {**self._options.reading_options, "target": target}

    def facts(self) -> TabularFacts:
        if self._facts is None:
            train = self._counted().train
            weights = None if self._structure.weights is None else self._weights(train)
            facts: dict[str, Any] = {
                **{f"n_{part}": len(self._split.part(part)) for part in PARTS},
                "split": self._split.describe(),
                "in_memory": True,
                "columns": {
                    name: {
                        "kind": kind.kind,
                        "reason": kind.reason,
                        "evidence": dict(kind.evidence),
                        "confidence": kind.confidence,
                    }
                    for name, kind in self.columns.items()
                },
                "roles": self._options.roles,
                "target_names": list(self._target_names),
                "n_rows": len(self._frame),
                "csv": None if self._frame.dialect is None else asdict(self._frame.dialect),
                **self._targets.facts(train, weights),
                **readings_as_facts(self.readings),
            }
            self._facts = cast("TabularFacts", facts)
        return self._facts

    def report(self) -> str:
        """Return a summary as text: parts, target, columns with kind and reason, notes."""
        lines = [repr(self), f"target: {self._targets.reason}", str(self._split)]
        width = max(map(len, self.columns), default=0)
        lines += [f"  {name:{width}}  {kind.reason}" for name, kind in self.columns.items()]
        return "\n".join([*lines, *map(str, self.readings), *self._notes])

    def fingerprint(self) -> dict[str, Any]:
        """Return that of ``Data``, with digests of the cells and of the weights of the rows."""
        found = super().fingerprint()
        if self._cells is not None:
            found["cells"] = f"digest {self._cells}"
        if self._structure.weights is not None:
            content = self._structure.weights.double().numpy().tobytes()
            found["sample weights"] = f"digest {digest(content)}"
        return found

    def baselines(self, found: Interpretation) -> Baselines | None:
        """Return trivial, linear and boosted models on the rows of a report.

        See `flambeau_tabular.report.baselines.table_baselines`.
        """
        from flambeau_tabular.report.baselines import table_baselines

        return table_baselines(self, found)

    def report_sections(self, found: Interpretation) -> Sequence[Section]:
        from flambeau_tabular.report.sections import report_sections

        return report_sections(self, found)

    def preview(self, row: int) -> Preview | None:
        """Return the first cells of a row."""
        cells = self._frame.take([row])
        lines = [
            f"{name}: {cells.column(name)[0].as_py()!s:.30}" for name in cells.column_names[:_CELLS]
        ]
        more = len(cells.column_names) - _CELLS
        lines += [f"and {more} more columns"] if more > 0 else []
        number = row if self._kept is None else self._kept[row]
        return Preview("\n".join([f"row {number}", *lines]))

    def source_rows(self, rows: Rows) -> Rows:
        return rows if self._kept is None else self._kept[rows]

    def raw(self, part: str) -> FrameRows:
        return FrameRows(self._frame.take(self._split.part(part)))

    def groups(self, part: str) -> Sequence[Any] | None:
        groups = self._structure.groups
        return None if groups is None else groups[self._split.part(part)].tolist()

    def is_loaded(self, part: str, values: Mapping[str, Any]) -> bool:
        return True

    def subset(self, rows: Mapping[str, Sequence[int]]) -> TabularData:
        """Return the data with only these rows in each part (row numbers of ``frame``)."""
        return self.with_split(Split.from_parts(rows))

    def of_target(self, name: str) -> TabularData:
        """Return the data of one of several targets: each part has the rows with this target.

        Raises:
            InputError: There is no target of this name among several.
        """
        if name not in self.several_targets:
            known = name_some(map(repr, self.several_targets)) or "a single one"
            raise InputError(f"There is no target {name!r} among several; there is {known}.")
        own = self._targets.by_name[name]
        parts = {part: self._split.part(part) for part in PARTS}
        rows = {part: each[~own.missing(each)] for part, each in parts.items()}
        options = replace(
            self._options,
            task=cast("TaskName", self._targets.own_tasks()[name]),
            target_tasks=None,
            target_classes=None,
            like=None,
        )
        return TabularData(
            self._frame,
            own,
            Split.from_parts(rows),
            options,
            target_names=[name],
            structure=self._structure,
            kept=self._kept,
        )

    def split_arguments(self, rows: Rows) -> Mapping[str, Any]:
        structure = self._structure
        is_classes = self._targets.kind == "classification"
        return {
            "stratify": self.targets.of(rows).numpy() if is_classes else None,
            "groups": None if structure.groups is None else structure.groups[rows],
            "times": None if structure.times is None else structure.times[rows],
            "embargo": self._options.embargo,
        }

    def with_split(self, split: Split) -> TabularData:
        targets = self._targets
        return TabularData(
            self._frame,
            targets.single if targets.is_single else targets.by_name,
            split,
            self._options,
            target_names=self._target_names,
            structure=self._structure,
            notes=self._notes,
            label_type=self._label_type,
            kept=self._kept,
        )

    @classmethod
    def inputs_from_path(cls, path: Path) -> FrameRows:
        from flambeau_tabular.assemble import read_file

        return FrameRows(read_file(path))

    @classmethod
    def tables_from_path(
        cls, path: Path, options: Mapping[str, Any] = MappingProxyType({})
    ) -> Iterator[TablePiece] | None:
        from flambeau_tabular.assemble import iter_file

        csv = CsvOptions.of(options["csv"]) if options.get("csv") else None
        return map(TablePiece, iter_file(path, csv)) if is_table_file(path) else None

    # ------------------------------------------------------------ from the plan

    def preprocessor(self, values: Mapping[str, Any]) -> Preprocessor:
        from flambeau_tabular.columns import SpecOptions, TableSpec
        from flambeau_tabular.structure import OffsetColumn

        options = SpecOptions(**select_values(values, "scaling", "min_count", "out_of_range"))
        spec = TableSpec.fit(self._frame, self._counted().train, self.columns, options)
        return TabularPreprocessor(spec, self._label_type, OffsetColumn.of(self._options))

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        rows = self._split.part(part)
        if not len(rows):
            raise InputError(f"There are no {part} rows. Pass {part}= to the constructor.")
        if not isinstance(preprocessor, TabularPreprocessor):
            raise ArgumentError(
                f"TabularData needs a TabularPreprocessor, not a {type(preprocessor).__name__}."
            )
        self._check_task(values)
        encoded = preprocessor.spec.encode(self._frame, rows)
        weights = None if self._structure.weights is None else self._weights(rows)
        ids = torch.from_numpy(rows)
        offsets = self._offsets(rows)
        return MemoryDataset(
            encoded.inputs(),
            self._targets.tensors(rows),
            ids,
            weights,
            {} if offsets is None else {OFFSET: offsets},
            self._targets.batch_dtypes(),
            None if self._kept is None else torch.from_numpy(self._kept[rows]),
        )

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if not isinstance(preprocessor, TabularPreprocessor):
            raise ArgumentError(
                f"TabularData needs a TabularPreprocessor, not a {type(preprocessor).__name__}."
            )
        n_outputs = self._targets.n_outputs(values)
        return model_arguments(preprocessor.spec, n_outputs, values)

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        self._check_task(values)
        split = self._counted()
        weights = None if self._structure.weights is None else self._weights(split.train)
        return self._targets.task_arguments(split, weights, self._offsets(split.train), values)

    # ------------------------------------------------------------ internal

    def _counted(self) -> Split:
        """Return the split without the train rows of weight 0, which have no influence."""
        if self._structure.weights is None:
            return self._split
        train = self._split.train
        counts = np.asarray((self._weights(train) > 0).numpy())
        return self._split if counts.all() else replace(self._split, train=train[counts])

    def _weights(self, rows: np.ndarray) -> Tensor:
        return cast("Tensor", self._structure.weights)[torch.from_numpy(np.array(rows))]

    def _offsets(self, rows: np.ndarray) -> Tensor | None:
        offsets = self._structure.offsets
        return None if offsets is None else offsets[torch.from_numpy(np.array(rows))]

    def _check_task(self, values: Mapping[str, Any]) -> None:
        task = values.get("task", self._targets.kind)
        kind = "regression" if task in NUMBER_TASKS else task
        known = ("classification", "multi_label", "regression", SEVERAL)
        if kind in known and kind != self._targets.kind:
            raise PlanError(
                f"The plan's task is {task!r}, but the target was read for "
                f"{self._targets.kind!r}: {self._targets.reason}. Pass the task when you create "
                f"the data: TabularOptions(task={task!r}), on the command line --task {task}."
            )
