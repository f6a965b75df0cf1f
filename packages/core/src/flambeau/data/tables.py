"""``Table``: the columns of a CSV file, a data frame or a mapping, by name."""

from __future__ import annotations

import bz2
import csv
import gzip
import itertools
import lzma
import os
import re
import zlib
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, cast

from flambeau.errors import InputError, MissingDependencyError, did_you_mean
from flambeau.wording import name_some

_DELIMITERS = ",;\t|"
_OPENERS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_SHOWN_BYTES = 20
_MOST_CHARACTERS = 2**31 - 1  # the largest limit of the csv module on every platform
# Plain numbers only: 007 is a code, and 1_000, which Python reads as 1000, is a name.
_DIGITS = r"(0|[1-9][0-9]{0,299})"  # longer ones cannot be floats
_INTEGER = re.compile(rf"[-+]?{_DIGITS}")
_CODE = re.compile(rf"{_DIGITS}(e[0-9]+)?", re.IGNORECASE)
_FLOAT = re.compile(
    rf"[-+]?(({_DIGITS}(\.[0-9]*)?|\.[0-9]+)(e[-+]?[0-9]+)?|nan|inf(inity)?)", re.IGNORECASE
)


class Table:
    """Columns of equal length by name; a column is converted to a list when it is read.

    Created by `read_csv` and `read_table`.

    Args:
        columns: A function for each column that returns its values.
        name: Name of the table in messages: "frame", or the name of a file.

    Attributes:
        name: As the argument.

    Example:
        >>> table = read_table({"file": ["a.png", "b.png"], "label": ["cat", "dog"]})
        >>> table.names, table.column("label")
        (('file', 'label'), ['cat', 'dog'])
    """

    def __init__(self, columns: Mapping[str, Callable[[], list[Any]]], name: str) -> None:
        self._columns = dict(columns)
        self.name = name

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in their order."""
        return tuple(self._columns)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def column(self, name: str) -> list[Any]:
        """Return the values of a column, one per row.

        Raises:
            InputError: There is no such column.
        """
        if name not in self._columns:
            raise InputError(
                f"The table ({self.name}) has no column {name!r}. "
                f"{did_you_mean(name, self._columns)}"
            )
        return self._columns[name]()

    def with_numbers(self, *, text: Collection[str] = ()) -> Table:
        """Return the table with `parse_numbers` applied to its columns, which have to be text.

        Args:
            text: Columns that stay text: the file name "1.10" is not the number 1.1.
        """

        def parsed(read: Callable[[], list[Any]]) -> Callable[[], list[Any]]:
            return lambda: parse_numbers(read())

        columns = {
            name: read if name in text else parsed(read) for name, read in self._columns.items()
        }
        return Table(columns, self.name)


def read_csv(
    path: str | os.PathLike[str],
    *,
    rows: int | None = None,
    header: bool | Callable[[Sequence[str]], bool] = True,
    delimiter: str | None = None,
    encoding: str | None = None,
    quote: str | None = None,
) -> Table:
    r"""Read a delimited text file with a header; every cell is text, also "NA" and "3".

    Files named ``.tsv``, and those named ``.txt`` whose first line has a tab, are separated by
    tabs, and quotes in them are ordinary characters. Others are separated by comma, semicolon, tab
    or vertical bar, whichever gives the header the most columns; a cell in double quotes may
    contain separators, line feeds and doubled quotes. Lines
    without any character are skipped. A file named ``.gz``, ``.bz2`` or ``.xz`` is decompressed.

    Args:
        path: The file.
        rows: Read only this many rows; with 0, only the header.
        header: Whether the first line has the names of the columns, or a function that decides
            this from the cells of the first line. Without a header the names are "0", "1", ….
        delimiter: Separator of the cells; None infers it.
        encoding: Encoding of the file; None is UTF-8, with or without byte-order mark.
        quote: Character around cells that contain separators; "" for none. None is the double
            quote, and none in files named ``.tsv``.

    Raises:
        InputError: The file does not exist, has another encoding, has no rows, or has two columns
            with the same name; a row and the header have different lengths; or a quoted cell is not
            closed. The message gives the line.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path} does not exist or is not a file (current folder: {Path.cwd()}). Give a CSV "
            "file with a header."
        )
    if {".json", ".jsonl", ".ndjson"} & set(_endings(path)):
        raise InputError(
            f"{path} is a JSON file, not a table of lines with separators. Read it with "
            "pandas.read_json(path, lines=True), and give the data frame to from_df."
        )
    with (
        _open(path, "rt", encoding=encoding or "utf-8-sig", newline="") as file,
        _explained(path, encoding),
        _cells_of_any_length(),
    ):
        first = file.readline()
        if "\0" in first:
            raise InputError(f"{path} contains NUL characters: probably UTF-16. Save it as UTF-8.")
        if quote is None:
            quote = "" if _is_tab_separated(path, first) else '"'
        reader = csv.reader(
            itertools.chain([first], file),
            delimiter=delimiter or _delimiter(path, first),
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            quotechar=quote or None,
            strict=True,
        )
        most = None if rows is None else rows + 1
        records = _records(reader, path, most, has_quotes=bool(quote)) or [[]]
    has_header = header if isinstance(header, bool) else header(records[0])
    if has_header:
        names, *body = records
    else:
        names, body = list(map(str, range(len(records[0])))), records[:rows]
    _check_header(names, path)
    if not body and rows != 0:
        raise InputError(f"{path} has no rows below its header. Give at least one.")
    columns = [list(cells) for cells in zip(*body, strict=True)] or [[] for _ in names]
    return _table(dict(zip(names, columns, strict=True)), path.name)


def find_delimiter(path: str | os.PathLike[str], encoding: str | None = None) -> str:
    """Return the separator of the cells of a file: a tab if it is named ``.tsv``.

    A file named ``.txt`` whose first line has a tab is separated by tabs, too. Otherwise it is that
    of comma, semicolon, tab and vertical bar which gives the first line the most columns.

    Args:
        path: A file that `read_csv` reads.
        encoding: Encoding of the file; None is UTF-8.
    """
    path, name = Path(path), encoding or "utf-8-sig"
    with _open(path, "rt", encoding=name, newline="") as file, _explained(path, encoding):
        return _delimiter(path, file.readline())


def read_table(source: Any, name: str = "frame") -> Table:
    """Return the columns of a data frame or of a mapping of names to sequences.

    Frames of any library (pandas, polars, pyarrow, DuckDB, …) are read through the Arrow stream
    protocol; missing cells become None. Without pyarrow, and if cells are objects that Arrow does
    not know (paths, images), the columns of a pandas or polars frame are read directly.

    Args:
        source: The frame or mapping.
        name: Name of the table in messages.

    Raises:
        InputError: ``source`` is not a table, or its columns differ in length or share a name.
        MissingDependencyError: Only pyarrow can read the frame, and it is not installed.
    """
    if isinstance(source, Mapping):
        mapping = cast("Mapping[object, Iterable[Any]]", source)
        columns = {str(key): to_list(values) for key, values in mapping.items()}
        lengths = {key: len(values) for key, values in columns.items()}
        if len(set(lengths.values())) > 1:
            seen = ", ".join(f"{key} {length:,}" for key, length in lengths.items())
            raise InputError(
                f"The columns have different lengths: {seen}. Give every column one value per row."
            )
        return _table(columns, name)
    is_stream = hasattr(source, "__arrow_c_stream__")
    with_arrow = is_stream and find_spec("pyarrow") is not None
    if with_arrow and (table := _from_arrow(source, name)) is not None:
        return table
    names: list[object] = list(getattr(source, "columns", ()))
    if names and all(hasattr(source[each], "to_list") for each in names):
        _check_names([str(each) for each in names], name)
        return Table({str(each): _reader(source[each].to_list) for each in names}, name)
    if is_stream and with_arrow and not names:
        raise InputError(
            f"A {type(source).__name__} is a single column, not a table. Give a data frame: "
            "series.to_frame(name)."
        )
    if is_stream:
        raise MissingDependencyError(
            f"Reading a {type(source).__name__} needs pyarrow: pip install 'flambeau[tables]'. Or "
            "give a mapping of column names to lists."
        )
    raise InputError(
        f"A {type(source).__name__} is not a data frame with columns. Give a data frame or a "
        "mapping of column names to sequences."
    )


def parse_numbers(cells: Sequence[str]) -> list[Any]:
    """Return the cells as int or float if all are numbers in plain form, else unchanged.

    Numbers with leading zeros (codes such as 007) and with separators (1_000, 1,5) are text. A
    column of whole numbers and texts such as 1e5 is text, too: programs write the float as 1e+05.

    Example:
        >>> parse_numbers(["1", "2.5"]), parse_numbers(["1", "02"])
        ([1.0, 2.5], ['1', '02'])
    """
    for pattern, kind in ((_INTEGER, int), (_CODE, str), (_FLOAT, float)):
        if all(pattern.fullmatch(cell.strip()) for cell in cells):
            return [kind(cell) for cell in cells]
    return list(cells)


def to_list(values: Any) -> list[Any]:
    """Return a list of Python values, given a tensor, an array, a column or a sequence.

    The entries of an array of times or of rows with fields stay NumPy scalars: the Python value of
    a time in nanoseconds is a plain integer, and that of a row a tuple.
    """
    if getattr(getattr(values, "dtype", None), "kind", "") in ("m", "M", "V"):
        return list(values)
    convert = getattr(values, "tolist", None)
    return cast("list[Any]", convert()) if convert is not None else list(values)


# ---------------------------------------------------------------- delimited text


def _endings(path: Path) -> list[str]:
    return [ending.lower() for ending in path.suffixes]


def _open(path: Path, *args: Any, **kwargs: Any) -> IO[Any]:
    return _OPENERS.get(path.suffix.lower(), open)(path, *args, **kwargs)


@contextmanager
def _explained(path: Path, encoding: str | None = None) -> Generator[None]:
    """Convert errors of decoding (with the line) and decompression to an ``InputError``."""
    try:
        yield
    except UnicodeError as error:
        if encoding is not None:
            raise InputError(
                f"{path} cannot be decoded as {encoding}: {error}. Give its encoding."
            ) from error
        raise InputError(_undecodable(path)) from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read: {error}. Check that the file is complete, and that its ending "
            "names its compression."
        ) from error


@contextmanager
def _cells_of_any_length() -> Generator[None]:
    """Allow cells of more than 131,072 characters, the default limit of Python's csv module."""
    limit = csv.field_size_limit(_MOST_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _undecodable(path: Path) -> str:
    with _open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
                    return f"{path} is UTF-16. Save it as UTF-8."
                wrong = line[error.start : error.start + _SHOWN_BYTES].rstrip()
                return (
                    f"{path}, line {number}: byte {error.start + 1} of the line is not UTF-8 "
                    f"({wrong!r}). Save the file as UTF-8; `iconv -f LATIN1 -t UTF-8` converts "
                    "Latin-1."
                )
    return f"{path} is not UTF-8. Save it as UTF-8."


def _is_tab_separated(path: Path, first_line: str) -> bool:
    endings = _endings(path)
    return ".tsv" in endings or (".txt" in endings and "\t" in first_line)


def _delimiter(path: Path, header: str) -> str:
    if _is_tab_separated(path, header):
        return "\t"
    return max(_DELIMITERS, key=lambda each: len(next(csv.reader([header], delimiter=each), ())))


def _records(reader: Any, path: Path, most: int | None, *, has_quotes: bool) -> list[list[str]]:
    """Return the first ``most`` records that are not empty lines, each as long as the first."""
    records: list[list[str]] = []
    line = 1
    try:
        for record in reader:
            if record and records and len(record) != len(records[0]):
                fix = "Quote cells that contain the separator."
                if not has_quotes:
                    fix = "Separate the cells of each row by as many tabs as those of the header."
                raise InputError(
                    f"Row {len(records) - 1} of {path} (line {line}) has {len(record)} fields, "
                    f"but the header has {len(records[0])}: {record[:4]!r:.120}. {fix}"
                )
            if record:
                records.append(record)
            if len(records) == most:
                break
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{path}: the row that starts in line {line} is not valid CSV ({error}). Close each "
            'quoted cell, and write a quote inside a quoted cell twice: "a ""quoted"" word".'
        ) from error
    return records


def _check_header(header: Sequence[str], path: Path) -> None:
    if not header:
        raise InputError(f"{path} is empty. Give a CSV file with a header.")
    _check_names(header, str(path))


def _check_names(names: Sequence[str], table: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"{table} has several columns named {name_some(map(repr, repeated))}. Give each column "
            "a different name."
        )


# ---------------------------------------------------------------- frames


def _from_arrow(source: Any, name: str) -> Table | None:
    """Return the columns of an Arrow stream; None if a cell or a name has no Arrow type."""
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]

    arrow = cast(Any, pyarrow)
    wanted: list[str] | None = None
    if hasattr(source, "columns") and hasattr(source, "index"):  # pandas adds its index
        wanted = list(source.columns)
        _check_names([str(each) for each in wanted], name)
        if not all(isinstance(each, str) for each in wanted):  # pyright: ignore[reportUnnecessaryIsInstance]
            return None
    try:
        table = arrow.RecordBatchReader.from_stream(source).read_all()
    except (arrow.lib.ArrowException, TypeError):  # TypeError: sparse columns
        return None
    names: list[str] = table.column_names
    _check_names(names, name)

    def reader(column: str) -> Callable[[], list[Any]]:
        stored: Any = table.column(column)
        kind = getattr(stored.type, "value_type", stored.type)
        if wanted is not None and isinstance(kind, arrow.BaseExtensionType):
            # Arrow has periods as numbers and intervals as dicts.
            return lambda: _without_missing(source[column].to_list())
        return _reader(stored.to_pylist)

    return Table({each: reader(each) for each in wanted or names}, name)


def _without_missing(values: Iterable[Any]) -> list[Any]:
    return [None if value != value else value for value in values]  # noqa: PLR0124  NaN, NaT


def _table(columns: Mapping[str, list[Any]], name: str) -> Table:
    def reader(values: list[Any]) -> Callable[[], list[Any]]:
        return lambda: list(values)

    return Table({key: reader(values) for key, values in columns.items()}, name)


def _reader(convert: Any) -> Callable[[], list[Any]]:
    return lambda: list(convert())
