"""``TabularPreprocessor``: encodes the rows of a table, the same in training and prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau_tabular.frame_rows import FrameRows, as_frame

if TYPE_CHECKING:
    from flambeau_tabular.columns import TableSpec


class TabularPreprocessor(Preprocessor):
    """The preprocessing of tables; all values are in the `TableSpec`.

    Args:
        spec: The fitted columns.
    """

    def __init__(self, spec: TableSpec) -> None:
        self.spec = spec

    @classmethod
    def build(cls, columns: Sequence[Mapping[str, Any]], grid: Tensor) -> TabularPreprocessor:
        """Return the preprocessor of an export, from ``arguments()`` and ``tensors()``."""
        from flambeau_tabular.columns import TableSpec

        return cls(TableSpec.from_parts({"columns": columns}, {"grid": grid}))

    @property
    def builder(self) -> str:
        """Name of the constructor in exports."""
        return "tabular_preprocessor"

    def encode(self, items: Sequence[Any]) -> Batch:
        """Return the inputs of rows: a frame, or one dict per row with the columns by name.

        Raises:
            InputError: A column is missing or has cells of another kind than in training.
        """
        encoded = self.spec.encode(as_frame(items))
        return Batch(
            encoded.inputs(), weight=float(len(encoded)), indices=torch.arange(len(encoded))
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

    def collect(self, items: Any, outputs: Sequence[Any]) -> Any:
        """Return the predictions as a frame of the kind that ``predict`` was given, else a list.

        A frame of pandas has the same index.
        """
        from flambeau.data.prediction_columns import columns_of, is_frame
        from flambeau_tabular.columns.frames import is_table

        if is_frame(items) or not is_table(items) or isinstance(items, Mapping):
            return super().collect(items, outputs)
        columns = columns_of(outputs)
        if type(items).__module__.partition(".")[0] == "polars":
            return type(items)(columns)
        import pyarrow as pa

        return pa.table(columns)

    def vocabulary_digest(self) -> str:
        """Return the hash of the fitted columns."""
        return self.spec.hash()

    def arguments(self) -> Mapping[str, Any]:
        return self.spec.arguments()

    def tensors(self) -> Mapping[str, Tensor]:
        return self.spec.tensors()
