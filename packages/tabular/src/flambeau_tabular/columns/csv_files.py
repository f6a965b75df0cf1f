"""``read_csv_table``: a delimited text file as columns; its dialect is read from the file."""

from __future__ import annotations

import lzma
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from flambeau.data.reading import Reading
from flambeau.data.tables import find_delimiter, read_csv
from flambeau.errors import InputError, did_you_mean
from flambeau.wording import first_line, name_some
from flambeau_tabular.columns.cells import pc
from flambeau_tabular.columns.csv_numbers import (
    Decimal,
    FoundStyle,
    NumberStyle,
    contains,
    excel_reading,
    find_number_style,
    matches,
    to_numbers,
)
from flambeau_tabular.columns.frames import Frame

MISSING_TEXTS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "?")
"""Cells that are read as missing by default."""

_DOUBTFUL, _LIKELY = 0.4, 0.8
_SAMPLE = 1000
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class CsvOptions:
    """How a delimited text file is read; None is inferred from the file.

    Attributes:
        delimiter: Separator of the cells: comma, semicolon, tab or vertical bar.
        decimal: Decimal separator of all numbers: "." or ",".
        missing: Cells that are missing, after spaces are removed.
        text: Columns that stay text even if all cells are numbers.
    """

    delimiter: str | None = None
    decimal: Decimal | None = None
    missing: tuple[str, ...] = MISSING_TEXTS
    text: tuple[str, ...] = ()


def read_csv_table(path: str | os.PathLike[str], options: CsvOptions | None = None) -> Frame:
    """Return the columns of a delimited text file with a header.

    A column is int64 or float64 if all of its cells are numbers, boolean if they are true and
    false, else text: dates are text, too, and `infer_kinds` finds them. Numbers with leading zeros
    and whole numbers of more than 18 digits are codes and stay text. Decimal commas, separators of
    thousands and the meaning of "NA" are inferred; where they are doubtful, ``readings`` says how
    they were read. Spaces before all cells of a column are removed. A file named ``.gz``, ``.bz2``
    or ``.xz`` is decompressed.

    Args:
        path: The file, UTF-8, with or without byte-order mark; quoted cells may contain separators
            and line feeds.
        options: What is not to be inferred.

    Raises:
        InputError: The file does not exist, is not UTF-8 (UTF-16 is named), is empty, or has two
            columns of one name or rows of different lengths. The message gives the line.
    """
    options = options or CsvOptions()
    file = _CsvFile.open(Path(path), options)
    table = file.read()
    if table.num_rows == 0:
        raise InputError(f"{path} has no rows below its header. Give at least one.")
    converter = _Converter(options, file.delimiter)
    converted = converter.convert(table)
    return Frame(converted, None, file.path.name, tuple(converter.readings))


def iter_csv_tables(
    path: str | os.PathLike[str], options: CsvOptions | None = None
) -> Iterator[Frame]:
    """Yield a file in pieces of about 16 MB, for files that do not fit into memory.

    The dialect is that of the first piece; the type of a column may differ between pieces.

    Raises:
        InputError: As `read_csv_table`.
    """
    options = options or CsvOptions()
    file = _CsvFile.open(Path(path), options)
    converter = _Converter(options, file.delimiter)
    for table in file.pieces():
        yield Frame(converter.convert(table), None, file.path.name, tuple(converter.readings))
        converter.readings.clear()


# ---------------------------------------------------------------- cells of text


@dataclass(frozen=True)
class _CsvFile:
    """A file with its header and delimiter; reads all cells as text."""

    path: Path
    names: tuple[str, ...]
    delimiter: str

    @classmethod
    def open(cls, path: Path, options: CsvOptions) -> _CsvFile:
        header = read_csv(path, rows=0, delimiter=options.delimiter)
        for name in options.text:
            if name not in header:
                raise InputError(
                    f"text names the column {name!r}, which {path} does not have. "
                    f"{did_you_mean(name, header.names)}"
                )
        return cls(path, header.names, options.delimiter or find_delimiter(path))

    def read(self) -> pa.Table:
        """Return all cells as text, none of them missing."""
        try:
            with self._bytes() as source:
                table = pyarrow.csv.read_csv(source, *self._settings())
        except (pa.ArrowException, OSError, lzma.LZMAError, EOFError) as error:
            raise self._explained(error) from error
        if self._has_odd_quotes():
            # Arrow takes the rest of the file for a cell; the strict reader names the line.
            read_csv(self.path, delimiter=self.delimiter)
        return table

    def pieces(self) -> Iterator[pa.Table]:
        """Yield the cells as text, some 16 MB at a time."""
        try:
            with self._bytes() as source, pyarrow.csv.open_csv(source, *self._settings()) as reader:
                for batch in reader:
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError, lzma.LZMAError, EOFError) as error:
            raise self._explained(error) from error

    def _settings(self) -> tuple[Any, Any, Any]:
        quoted = ".tsv" not in [each.lower() for each in self.path.suffixes]
        return (
            pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
            pyarrow.csv.ParseOptions(
                delimiter=self.delimiter,
                quote_char='"' if quoted else False,
                newlines_in_values=quoted,
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
        if ".tsv" in [each.lower() for each in self.path.suffixes]:
            return False
        quotes = 0
        with self._bytes() as source:
            while block := source.read(_BLOCK_BYTES):
                quotes += block.count(b'"')
        return quotes % 2 == 1

    def _explained(self, error: BaseException) -> InputError:
        """Return an error with the line, which the slow reader of core finds."""
        try:
            read_csv(self.path, delimiter=self.delimiter)
        except InputError as explained:
            return explained
        return InputError(f"{self.path} cannot be read as CSV: {first_line(error)}.")


# ---------------------------------------------------------------- values


class _Converter:
    """Converts columns of text to values; later pieces are read like the first one."""

    def __init__(self, options: CsvOptions, delimiter: str) -> None:
        self.options = options
        self.delimiter = delimiter
        self.readings: list[Reading] = []
        self._decimal: Decimal | None = options.decimal
        self._missing = pa.array(options.missing, pa.large_string())

    def convert(self, table: pa.Table) -> pa.Table:
        """Return the columns as numbers, booleans or text with missing cells."""
        columns: dict[str, pa.ChunkedArray] = {}
        found: dict[str, FoundStyle] = {}
        spaced: list[str] = []
        for name in table.column_names:
            cells, had_spaces = _trimmed(table.column(name))
            if had_spaces:
                spaced.append(name)
            missing = pc.is_in(cells, value_set=self._missing)
            columns[name] = pc.if_else(missing, pa.scalar(None, pa.large_string()), cells)
            known = columns[name].drop_null()
            style = None if name in self.options.text else self._number_style(known)
            if style is not None:
                found[name] = style
            elif _are_booleans(known):
                columns[name] = pc.equal(pc.utf8_lower(columns[name]), "true")
            else:
                self._read_missing(name, cells, missing)
                columns[name] = _compact(columns[name])
            table = table.drop_columns([name])  # frees the memory
        if spaced:
            what = f"All cells of {len(spaced)} columns start with a space, which is removed: "
            self.readings.append(Reading("columns", f"{what}{name_some(spaced)}."))
        self._decide(found)
        for name, style in found.items():
            columns[name] = self._numbers(name, columns[name], style)
        names = [name.strip() if name in spaced else name for name in columns]
        if len(set(names)) < len(names):
            names = list(columns)
        return pa.table(list(columns.values()), names=names)

    def _number_style(self, known: pa.ChunkedArray) -> FoundStyle | None:
        sample = pc.utf8_trim_whitespace(known[:_SAMPLE])
        if find_number_style(sample) is None:
            return None
        trimmed = pc.utf8_trim_whitespace(known)
        found = find_number_style(trimmed)
        given = self.options.decimal
        if given and found and found.style and found.sure and found.style.decimal != given:
            # Whole numbers have no decimal separator; others are no numbers then.
            return None if contains(trimmed, ".*[.,].*") else found
        return found

    def _decide(self, found: dict[str, FoundStyle]) -> None:
        """Decide the decimal separator of the file, if a column has a sure one."""
        if self._decimal is None:
            sure = [each.style.decimal for each in found.values() if each.style and each.sure]
            has_thousands = [
                each.style.decimal
                for each in found.values()
                if each.style and each.sure and each.style.thousands
            ]
            if "," in sure:
                self._decimal = ","
            elif "." in has_thousands:
                self._decimal = "."

    def _numbers(self, name: str, cells: pa.ChunkedArray, found: FoundStyle) -> pa.ChunkedArray:
        style, trimmed = found.style, pc.utf8_trim_whitespace(cells)
        if excel := excel_reading(trimmed.drop_null(), name):
            self.readings.append(excel)
        if found.sure and style is not None:
            return to_numbers(trimmed, style)
        # "1,234" or "1.234": with a decimal separator, or one of thousands.
        decimal = self._decimal or ("." if self.delimiter == "," or style is not None else ",")
        chosen = NumberStyle(decimal, "," if decimal == "." else ".")
        example = next(text for text in trimmed.drop_null().to_pylist() if not text.isdecimal())
        separator = "," if "," in example else "."
        if self.options.decimal is None and not (separator == "." == decimal):
            meaning = "a decimal separator" if separator == decimal else "a separator of thousands"
            self._doubt_number(name, example, separator, meaning, decimal)
        return to_numbers(trimmed, chosen)

    def _doubt_number(
        self, name: str, example: str, separator: str, meaning: str, decimal: str
    ) -> None:
        other = "." if decimal == "," else ","
        why = "as in other columns" if self._decimal else f"as the delimiter is {self.delimiter!r}"
        self.readings.append(
            Reading(
                "columns",
                f"In numbers of column {name!r} such as {example}, {separator!r} could separate "
                f"decimals or thousands; it is read as {meaning}, {why}.",
                {"example": example},
                confidence=_DOUBTFUL,
                override=f"For the other meaning pass CsvOptions(decimal={other!r}).",
            )
        )

    def _read_missing(self, name: str, cells: pa.ChunkedArray, missing: pa.ChunkedArray) -> None:
        """Append a reading if a column of text has texts that are read as missing."""
        counted = {
            str(each["values"]): each["counts"]
            for each in pc.value_counts(cells.filter(missing)).to_pylist()
            if each["values"] != ""
        }
        if not counted:
            return
        known = cells.filter(pc.invert(missing))
        # "NA" among codes of two capital letters could be Namibia.
        is_code = "NA" in counted and matches(known[:_SAMPLE], "[A-Z]{2}")
        shown = name_some(f"{count:,} cells {text!r}" for text, count in counted.items())
        self.readings.append(
            Reading(
                "columns",
                f"In column {name!r}, {shown} are read as missing.",
                counted,
                confidence=_DOUBTFUL if is_code else _LIKELY,
                override="To keep them as text pass CsvOptions(missing=('',)).",
            )
        )


def _trimmed(cells: pa.ChunkedArray) -> tuple[pa.ChunkedArray, bool]:
    """Return the cells without surrounding spaces if all start with one, and whether they did."""
    for part in (cells[:_SAMPLE], cells):
        starts = pc.or_(pc.starts_with(part, " "), pc.equal(part, ""))
        if not pc.all(starts, min_count=0).as_py():
            return cells, False
    if not contains(cells, " .*"):
        return cells, False  # all are empty
    return pc.utf8_trim_whitespace(cells), True


def _are_booleans(known: pa.ChunkedArray) -> bool:
    pattern = "(?i:true|false)"
    return len(known) > 0 and matches(known[:_SAMPLE], pattern) and matches(known, pattern)


def _compact(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the cells as dictionary cells, if texts repeat."""
    sample = cells[:_SAMPLE]
    return (
        cells.dictionary_encode() if 2 * pc.count_distinct(sample).as_py() < len(sample) else cells
    )
