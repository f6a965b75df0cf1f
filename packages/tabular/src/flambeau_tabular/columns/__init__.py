"""Columns of tables: reading frames and files, kinds of columns, and their encoding as tensors."""

from flambeau_tabular.columns.column_check import ColumnCheck
from flambeau_tabular.columns.encoded_table import EncodedTable
from flambeau_tabular.columns.frames import ColumnSource, Frame, read_frame
from flambeau_tabular.columns.kinds import ColumnKind, infer_kinds
from flambeau_tabular.columns.table_spec import SpecOptions, TableSpec

__all__ = [
    "ColumnCheck",
    "ColumnKind",
    "ColumnSource",
    "EncodedTable",
    "Frame",
    "SpecOptions",
    "TableSpec",
    "infer_kinds",
    "read_frame",
]
