"""Recognise tables of mixed columns on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flambeau.data.tables import read_csv
from flambeau.domain import Recognition
from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_tabular.csv_options import CsvOptions

CSV_ENDINGS = (".csv", ".tsv")
PARQUET_ENDINGS = (".parquet", ".pq")
_ROWS = 20
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
# Options of other domains that say that the table has something else than mixed columns.
_OTHERS = ("file", "source", "source-column", "columns")


def is_table_file(path: Path) -> bool:
    """Return whether the name of a file is that of a CSV, TSV or Parquet file."""
    endings = [ending.lower() for ending in path.suffixes]
    return any(ending in (*CSV_ENDINGS, *PARQUET_ENDINGS) for ending in endings)


def recognise(path: Path, options: Mapping[str, str]) -> Recognition | None:
    """Recognise CSV, TSV and Parquet files.

    "sure": ``--target`` names one of the columns, and no column has the paths of images.
    "possible": another table; which column to predict is not known. "no", with the cause: a file
    that cannot be read as a table, or a table with the paths of images.
    """
    if not path.is_file() or not is_table_file(path):
        return None
    try:
        names, cells = _head(path, options)
    except (InputError, OSError, ValueError) as error:
        hint = " Or give its encoding: --encoding latin-1." if "UTF-" in str(error) else ""
        return Recognition("no", f"{error}{hint}")
    if len(names) < 2:
        return Recognition(
            "no", f"It has the single column {names[0]!r}." if names else "No column."
        )
    targets = [name.strip() for name in options.get("target", "").split(",") if name.strip()]
    if options.get("target") in names:
        targets = [options["target"]]
    if any(text.lower().endswith(_IMAGES) for text in cells):
        reason = (
            "It has paths of images, which flambeau-vision reads; --domain tabular ignores them."
        )
        return Recognition("no", reason)
    if any(name in options for name in _OTHERS) or options.get("task") == "translation":
        return Recognition("possible", f"It is a table with {len(names):,} columns.")
    if targets and all(name in names for name in targets):
        shown = name_some(map(repr, targets))
        return Recognition("sure", f"It is a table with the column {shown} of --target.")
    hint = "Name the column to predict with --target."
    return Recognition("possible", f"It is a table with {len(names):,} columns. {hint}")


def csv_options(texts: Mapping[str, str]) -> dict[str, str]:
    """Return the options on the command line that say how a text file is laid out."""
    names = ("delimiter", "encoding", "quote")
    return {name: parse_character(texts[name]) for name in names if name in texts}


def parse_character(text: str) -> str:
    r"""Return a character; ``tab`` and ``\t`` are a tab, ``none`` is no character."""
    return {"tab": "\t", "\\t": "\t", "none": ""}.get(text, text)


def _head(path: Path, options: Mapping[str, str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of the columns, and the text of the first cells."""
    if any(ending.lower() in PARQUET_ENDINGS for ending in path.suffixes):
        import pyarrow.parquet

        try:
            return tuple(pyarrow.parquet.read_schema(path).names), []
        except OSError as error:
            raise InputError(f"It is no complete Parquet file: {error}") from error
    given = CsvOptions.of(csv_options(options))
    table = read_csv(
        path,
        rows=_ROWS,
        delimiter=given.delimiter,
        encoding=given.encoding,
        quote=given.quote,
    )
    return table.names, [cell for name in table.names for cell in table.column(name)]
