"""Find the source and the target column of a table, and whether its first line is a header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flambeau.data.tables import Table, find_delimiter, read_csv
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_text.languages import language_code
from flambeau_text.translation.text_files import reads_like_a_sentence


@dataclass(frozen=True)
class Wanted:
    """What the user specified about the columns; a field is None if it was not specified.

    Attributes:
        source: Name of the source column.
        target: Name of the target column.
        positions: Positions of both columns in a table without a header, such as "0,1".
        source_language: Language code of the sources.
        target_language: Language code of the targets.
    """

    source: str | None = None
    target: str | None = None
    positions: str | None = None
    source_language: str | None = None
    target_language: str | None = None


def is_table_of_pairs(path: Path) -> bool:
    """Return whether a file is a table: a CSV or TSV file, or a text file with tabs (Anki)."""
    endings = {suffix.lower() for suffix in path.suffixes}
    if {".csv", ".tsv"} & endings:
        return True
    if ".txt" not in endings or not path.is_file():
        return False
    try:
        return find_delimiter(path) == "\t"
    except InputError:  # the error of reading it says more
        return False


def read_pair_table(path: Path, wanted: Wanted) -> tuple[Table, str, str, str]:
    """Return a table, its source and its target column, and the reason for these columns.

    If the user gave no positions, the first line must be a header that differs clearly from a
    sentence pair: it has the names that the user gave, "source" and "target", or two languages.

    Raises:
        ArgumentError: The positions are not two numbers.
        InputError: It is unclear whether the table has a header, or which columns to use.
    """
    if wanted.positions is not None:
        source, target = _parse_positions(wanted.positions)
        table = read_csv(path, header=False)
        _refuse_header(table, source, target, path)
        return table, source, target, f"columns {source} and {target} of a table without a header"
    head = read_csv(path, rows=1, header=False)
    source, target, reason = choose_columns([head.column(at)[0] for at in head.names], wanted, path)
    return read_csv(path), source, target, reason


def _refuse_header(table: Table, source: str, target: str, path: Path) -> None:
    """Refuse positions for a table whose first line has the names of two languages or sides."""
    if not {source, target} <= set(table.names):
        return
    first, second = (table.column(at)[0].strip() for at in (source, target))
    codes = [language_code(name) for name in (first, second)]
    is_header = None not in codes and codes[0] != codes[1]
    if is_header or {first.lower(), second.lower()} == {"source", "target"}:
        raise InputError(
            f"The first line of {path} has the column names {first!r} and {second!r}, but "
            "positions of columns are for a table without a header. Give the names: "
            f"--source-column {first} --target {second}, or TranslationData.from_csv(path, "
            f"{first!r}, {second!r})."
        )


def with_known_columns(wanted: Wanted, known: tuple[str, str] | None, path: Path) -> Wanted:
    """Return ``wanted`` with the columns of an export's data, if the user specified no columns.

    Args:
        wanted: What the user specified.
        known: The columns of the export's data. Names are used if the table has them; positions,
            of a table without a header, if the first line does not name source and target.
        path: The table.
    """
    if known is None or wanted.source or wanted.target or wanted.positions:
        return wanted
    head = read_csv(path, rows=1, header=False)
    names = [head.column(at)[0] for at in head.names]
    if set(known) <= set(names):
        return replace(wanted, source=known[0], target=known[1])
    if not all(name.isdecimal() for name in known):
        return wanted
    try:
        choose_columns(names, wanted, path)
    except InputError:
        return replace(wanted, positions=",".join(known))
    return wanted


def _parse_positions(text: str) -> tuple[str, str]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(part.isdecimal() for part in parts):
        raise ArgumentError(
            f"--columns {text} must be the positions of source and target in a table without a "
            "header, separated by a comma and counted from 0: --columns 0,1."
        )
    return str(int(parts[0])), str(int(parts[1]))


def choose_columns(names: Sequence[str], wanted: Wanted, path: Path | None) -> tuple[str, str, str]:
    """Return the source column, the target column, and how they were found.

    They are the columns that the user named, else "source" and "target"; else the columns of the
    languages that the user gave; else the two columns of a table, if their names are languages.

    Args:
        names: The cells of the first line, or the column names of a data frame.
        wanted: What the user specified.
        path: The table; None for a data frame.

    Raises:
        InputError: The columns are unclear, or the first line may be a sentence pair.
    """
    source, target = wanted.source, wanted.target
    shown = "frame" if path is None else path.name
    for name in (source, target):
        if name is not None and name not in names:
            known = did_you_mean(name, names)
            raise InputError(f"The table ({shown}) has no column {name!r}. {known}")
    if source and target:
        return source, target, f"columns {source!r} and {target!r}, as asked for"
    lower = {name.strip().lower(): name for name in names}
    source, target = source or lower.get("source"), target or lower.get("target")
    if source and target:
        return source, target, f"the header has {source!r} and {target!r}"
    source, target = wanted.source, wanted.target
    languages = {code: name for name in names if (code := language_code(name)) is not None}
    for_side = wanted.source_language, wanted.target_language
    first, second = (
        None if code is None else languages.get(language_code(code) or code) for code in for_side
    )
    source, target = source or first, target or second
    if len(names) == 2 and (len(languages) == 2 or source or target):
        source = source or next(name for name in names if name != target)
        target = target or next(name for name in names if name != source)
    if source and target:
        return source, target, f"the header has the columns {source!r} and {target!r}"
    raise InputError(_unclear(names, path))


def _unclear(names: Sequence[str], path: Path | None) -> str:
    shown = ", ".join(f"{name!r:.60}" for name in names)
    if path is None:
        return (
            f"The data frame has the columns {shown}; it is unclear which two are source and "
            'target. Name them: TranslationData.from_df(frame, "en", "de").'
        )
    start = (
        f"It is unclear which columns of {path} are source and target. Its first line is {shown}"
    )
    if len(names) == 2 and any(map(reads_like_a_sentence, names)):
        start = (
            f"The first line of {path}, {names[0]!r:.60} and {names[1]!r:.60}, looks like a "
            "sentence pair, not like column names"
        )
    return (
        f"{start}. If the table has no header, give the positions of source and target: --columns "
        "0,1, or TranslationData.from_csv(path, 0, 1). If it has one, give their names: "
        "--source-column NAME --target NAME."
    )
