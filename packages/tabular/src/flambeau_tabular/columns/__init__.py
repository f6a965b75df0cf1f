"""Columns of tables: reading frames and files, kinds of columns, and their encoding as tensors."""

from flambeau_tabular.column_kind import ColumnKind
from flambeau_tabular.columns.column_check import ColumnCheck
from flambeau_tabular.columns.column_source import ColumnSource
from flambeau_tabular.columns.csv_files import iter_csv_tables, read_csv_table
from flambeau_tabular.columns.encoded_table import EncodedTable
from flambeau_tabular.columns.frames import Frame, read_frame
from flambeau_tabular.columns.kinds import infer_kinds
from flambeau_tabular.columns.parquet_files import iter_parquet_tables, read_parquet_table
from flambeau_tabular.columns.spec_options import SpecOptions
from flambeau_tabular.columns.table_spec import TableSpec
from flambeau_tabular.csv_options import CsvOptions

__all__ = [
    "ColumnCheck",
    "ColumnKind",
    "ColumnSource",
    "CsvOptions",
    "EncodedTable",
    "Frame",
    "SpecOptions",
    "TableSpec",
    "infer_kinds",
    "iter_csv_tables",
    "iter_parquet_tables",
    "read_csv_table",
    "read_frame",
    "read_parquet_table",
]
