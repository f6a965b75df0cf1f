"""``TabularPreprocessor``: encodes the rows of a table, the same in training and prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau_tabular.frame_rows import FrameRows, TablePiece, as_frame

if TYPE_CHECKING:
    from flambeau_tabular.columns import TableSpec
    from flambeau_tabular.input_check import TableCheck
    from flambeau_tabular.predicted_frame import LabelType
    from flambeau_tabular.structure import OffsetColumn

OFFSET = "offset"
"""The name of the offset among the task inputs of a batch."""


class TabularPreprocessor(Preprocessor):
    """The preprocessing of tables; all values are in the `TableSpec`.

    Args:
        spec: The fitted columns.
        label_type: Type of the class labels in the target column, or in each of several; None if
            they are text, or the target is not a class.
        offset: Column of the exposure, which the task reads; None without one.
    """

    def __init__(
        self,
        spec: TableSpec,
        label_type: LabelType | Mapping[str, LabelType] | None = None,
        offset: OffsetColumn | None = None,
    ) -> None:
        self.spec = spec
        self.label_type: LabelType | Mapping[str, LabelType] | None = label_type
        self.offset = offset

    @classmethod
    def build(
        cls,
        columns: Sequence[Mapping[str, Any]],
        grid: Tensor,
        label_type: LabelType | Mapping[str, LabelType] | None = None,
        offset: Mapping[str, Any] | None = None,
    ) -> TabularPreprocessor:
        """Return the preprocessor of an export, from ``arguments()`` and ``tensors()``."""
        from flambeau_tabular.columns import TableSpec
        from flambeau_tabular.structure import OffsetColumn

        spec = TableSpec.from_parts({"columns": columns}, {"grid": grid})
        return cls(spec, label_type, None if offset is None else OffsetColumn(**offset))

    @property
    def builder(self) -> str:
        """Name of the constructor in exports."""
        return "tabular_preprocessor"

    def encode(self, items: Sequence[Any]) -> Batch:
        """Return the inputs of rows: a frame, or one dict per row with the columns by name.

        Raises:
            InputError: A column is missing or has cells of another kind than in training.
        """
        frame = as_frame(items)
        encoded = self.spec.encode(frame)
        return Batch(
            encoded.inputs(),
            weight=float(len(encoded)),
            indices=torch.arange(len(encoded)),
            task_inputs={} if self.offset is None else {OFFSET: self.offset.read(frame)},
        )

    def is_single(self, item: Any) -> bool:
        """Return whether ``item`` is one row: a dict of values."""
        return isinstance(item, Mapping)

    def expand(self, item: Any) -> Sequence[Any] | None:
        """Return the rows of a frame; None for anything else."""
        from flambeau_tabular.columns.frames import is_table

        if isinstance(item, FrameRows):
            return item
        return FrameRows(as_frame(item)) if is_table(item) else None

    def rows_of_frame(self, frame: Any) -> Sequence[Any]:
        """Return the rows of a pandas frame, or of a series of dicts."""
        is_series = not hasattr(frame, "columns")
        return list(frame) if is_series else FrameRows(as_frame(frame))

    def table_rows(self, items: Any) -> FrameRows | None:
        """Return the rows of a frame; None for other inputs, such as a mapping of lists."""
        if isinstance(items, TablePiece):
            return items
        return FrameRows(as_frame(items)) if _is_whole_frame(items) else None

    def collect(self, items: Any, outputs: Sequence[Any]) -> Any:
        """Return the predictions as a frame of the kind that ``predict`` was given, else a list.

        A frame of pandas has the same index.
        """
        is_series = hasattr(items, "iloc") and not hasattr(items, "columns")
        if not is_series and not _is_whole_frame(items):
            return super().collect(items, outputs)
        from flambeau.data.prediction_columns import columns_of

        frame = items.to_frame() if is_series else items
        return self.collect_columns(frame, columns_of(outputs))

    def collect_columns(self, items: Any, columns: Mapping[str, Any]) -> Any:
        """Return the predictions as a frame of the kind of ``items``.

        Labels of classes that were numbers or bools in train are such values again.
        """
        from flambeau_tabular.predicted_frame import frame_like, with_typed_labels

        columns = with_typed_labels(columns, self.label_type)
        return frame_like(items, columns)

    def warn_of_rows(self, rows: FrameRows) -> None:
        """Warn if many of the rows have cells that the train rows do not have."""
        from flambeau_tabular.input_check import WARN_ROWS, TableCheck

        if len(rows) >= WARN_ROWS:
            check = TableCheck(self.spec)
            check.add(rows)
            check.warn()

    def input_check(self) -> TableCheck:
        """Return an object that counts cells of tables that the train rows do not have."""
        from flambeau_tabular.input_check import TableCheck

        return TableCheck(self.spec)

    def vocabulary_digest(self) -> str:
        """Return the hash of the fitted columns."""
        return self.spec.hash()

    def arguments(self) -> Mapping[str, Any]:
        kept: dict[str, Any] = {}
        if self.label_type is not None:
            kept["label_type"] = self.label_type
        if self.offset is not None:
            kept["offset"] = self.offset.to_json()
        return {**self.spec.arguments(), **kept}

    def tensors(self) -> Mapping[str, Tensor]:
        return self.spec.tensors()


def _is_whole_frame(items: Any) -> bool:
    """Return whether ``items`` is a frame of some library: no mapping, and no single column."""
    from flambeau_tabular.columns.frames import is_table

    if hasattr(items, "iloc"):
        return hasattr(items, "columns")
    return is_table(items) and not isinstance(items, Mapping)
