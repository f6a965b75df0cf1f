"""``read_csv_table``: a delimited text file as columns; its dialect is read from the file."""

from __future__ import annotations

import lzma
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv

from flambeau.data.tables import find_delimiter, read_csv
from flambeau.errors import InputError, check_path, did_you_mean
from flambeau.wording import first_line
from flambeau_tabular.columns.csv_values import CsvValues
from flambeau_tabular.columns.frames import CsvDialect, Frame
from flambeau_tabular.csv_options import CsvOptions

_BLOCK_BYTES = 1 << 24


def read_csv_table(path: str | os.PathLike[str], options: CsvOptions | None = None) -> Frame:
    """Return the columns of a delimited text file with a header.

    A column is int64 or float64 if all of its cells are numbers, boolean if they are true and
    false, else text: dates are text, too, and `infer_kinds` finds them. Numbers with leading zeros
    and whole numbers of more than 18 digits are codes and stay text. Decimal commas, separators of
    thousands and the meaning of "NA" are inferred; where they are doubtful, ``readings`` says how
    they were read. Spaces before all cells of a column are removed. A file named ``.gz``, ``.bz2``
    or ``.xz`` is decompressed.

    Args:
        path: The file; quoted cells may contain separators and line feeds.
        options: What is not to be inferred.

    Raises:
        InputError: The file does not exist, has another encoding, is empty, or has two
            columns of one name or rows of different lengths. The message gives the line.
    """
    check_path(path, "path")
    options = options or CsvOptions()
    file = _CsvFile.open(Path(path), options)
    table = file.read()
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows below its header. Give at least one.")
    converter = CsvValues(options, file.delimiter)
    converted = converter.convert(table)
    readings = tuple(converter.readings)
    return Frame(converted, None, file.path.name, readings, file.dialect(converter))


def iter_csv_tables(
    path: str | os.PathLike[str], options: CsvOptions | None = None
) -> Iterator[Frame]:
    """Yield a file in pieces of about 16 MB, for files that do not fit into memory.

    The dialect is that of the first piece; the type of a column may differ between pieces.

    Raises:
        InputError: As `read_csv_table`.
    """
    check_path(path, "path")
    options = options or CsvOptions()
    file = _CsvFile.open(Path(path), options)
    converter = CsvValues(options, file.delimiter)
    start = 0
    for table in file.pieces():
        converted = converter.convert(table)
        readings, rows = tuple(converter.readings), np.arange(start, start + table.num_rows)
        yield Frame(converted, None, file.path.name, readings, rows=rows)
        converter.readings.clear()
        start += table.num_rows


# ---------------------------------------------------------------- cells of text


@dataclass(frozen=True)
class _CsvFile:
    """A file with its header and delimiter; reads all cells as text."""

    path: Path
    names: tuple[str, ...]
    delimiter: str
    options: CsvOptions

    @classmethod
    def open(cls, path: Path, options: CsvOptions) -> _CsvFile:
        try:
            header = read_csv(
                path,
                rows=0,
                delimiter=options.delimiter,
                encoding=options.encoding,
                quote=options.quote,
            )
        except InputError as error:
            if options.encoding is None and "UTF-" in str(error):
                raise InputError(
                    f"{error} Or give its encoding: TabularOptions(csv=CsvOptions(encoding="
                    "'latin-1')), on the command line --encoding latin-1."
                ) from error
            raise
        for name in options.text:
            if name not in header:
                raise InputError(
                    f"text names the column {name!r}, which {path} does not have. "
                    f"{did_you_mean(name, header.names)}"
                )
        delimiter = options.delimiter or find_delimiter(path, options.encoding)
        return cls(path, header.names, delimiter, options)

    @property
    def quote(self) -> str:
        """The character around cells, "" for none."""
        if self.options.quote is not None:
            return self.options.quote
        return "" if ".tsv" in [each.lower() for each in self.path.suffixes] else '"'

    def dialect(self, converted: CsvValues) -> CsvDialect:
        """Return how the file was read."""
        return CsvDialect(
            {
                "delimiter": self.delimiter,
                "decimal": converted.decimal,
                "thousands": converted.thousands,
                "encoding": self.options.encoding or "utf-8",
                "quote": self.quote,
                "missing": list(self.options.missing),
            },
            {"columns": len(self.names), **converted.found},
            tuple(self.options.to_json()),
        )

    def read(self) -> pa.Table:
        """Return all cells as text, none of them missing."""
        try:
            with self._bytes() as source:
                table = pyarrow.csv.read_csv(source, *self._settings())
        except (pa.ArrowException, OSError, lzma.LZMAError, EOFError, UnicodeError) as error:
            raise self._explained(error) from error
        if self.quote and self._has_odd_quotes():
            # Arrow takes the rest of the file for a cell; the strict reader names the line.
            self._read_slowly()
        return table

    def pieces(self) -> Iterator[pa.Table]:
        """Yield the cells as text, some 16 MB at a time."""
        try:
            with self._bytes() as source, pyarrow.csv.open_csv(source, *self._settings()) as reader:
                for batch in reader:
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError, lzma.LZMAError, EOFError, UnicodeError) as error:
            raise self._explained(error) from error

    def _settings(self) -> tuple[Any, Any, Any]:
        return (
            pyarrow.csv.ReadOptions(
                block_size=_BLOCK_BYTES, encoding=self.options.encoding or "utf8"
            ),
            pyarrow.csv.ParseOptions(
                delimiter=self.delimiter,
                quote_char=self.quote or False,
                newlines_in_values=bool(self.quote),
            ),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(self.names, pa.large_string()), strings_can_be_null=False
            ),
        )

    def _bytes(self) -> Any:
        if self.path.suffix.lower() == ".xz":
            return lzma.open(self.path, "rb")
        return pa.input_stream(str(self.path), compression="detect")

    def _has_odd_quotes(self) -> bool:
        quotes, character = 0, self.quote.encode("ascii")
        with self._bytes() as source:
            while block := source.read(_BLOCK_BYTES):
                quotes += block.count(character)
        return quotes % 2 == 1

    def _read_slowly(self) -> None:
        options = self.options
        read_csv(self.path, delimiter=self.delimiter, encoding=options.encoding, quote=self.quote)

    def _explained(self, error: BaseException) -> InputError:
        """Return an error with the line, which the slow reader of core finds."""
        try:
            self._read_slowly()
        except InputError as explained:
            return explained
        return InputError(f"{self.path} cannot be read as CSV: {first_line(error)}.")
