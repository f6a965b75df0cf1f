"""Which columns of a table are source and target, and whether its first line is a header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flambeau.data.tables import Table, read_csv
from flambeau.errors import ArgumentError, InputError
from flambeau_text.languages import language_code
from flambeau_text.translation.text_files import reads_like_a_sentence


@dataclass(frozen=True)
class Wanted:
    """What the user says about the columns; None where nothing is said.

    Attributes:
        source: Name of the source column.
        target: Name of the target column.
        positions: Positions of both columns in a table without a header, such as "0,1".
        source_language: Language code.
        target_language: Language code.
    """

    source: str | None = None
    target: str | None = None
    positions: str | None = None
    source_language: str | None = None
    target_language: str | None = None


def read_pair_table(path: Path, wanted: Wanted) -> tuple[Table, str, str, str]:
    """Return a table, the names of its source and its target column, and the reason.

    Without positions the first line has to be a header that can be told from a sentence pair: it
    has the names asked for, "source" and "target", or two languages.

    Raises:
        ArgumentError: The positions are not two numbers.
        InputError: It is unclear whether the table has a header, or which columns to use.
    """
    if wanted.positions is not None:
        source, target = _parse_positions(wanted.positions)
        table = read_csv(path, header=False)
        return table, source, target, f"columns {source} and {target} of a table without a header"
    head = read_csv(path, rows=1, header=False)
    source, target, reason = choose_columns([head.column(at)[0] for at in head.names], wanted, path)
    return read_csv(path), source, target, reason


def with_known_columns(wanted: Wanted, known: tuple[str, str] | None, path: Path) -> Wanted:
    """Return what is wanted with the columns of an export's data, where the user names none.

    Names apply if the table has them. Positions, of a table without a header, apply if the first
    line does not name the columns.
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
            "header, from 0: --columns 0,1."
        )
    return str(int(parts[0])), str(int(parts[1]))


def choose_columns(names: Sequence[str], wanted: Wanted, path: Path) -> tuple[str, str, str]:
    """Return the source column, the target column, and how they were found.

    They are those asked for by name, else "source" and "target", else those of the languages asked
    for, else the only two languages among two columns.

    Raises:
        InputError: They are unclear, or the first line may be a sentence pair.
    """
    source, target = wanted.source, wanted.target
    if source and target:
        return source, target, f"columns {source!r} and {target!r}, as asked for"
    lower = {name.strip().lower(): name for name in names}
    if not (source or target) and {"source", "target"} <= set(lower):
        return lower["source"], lower["target"], "the header has 'source' and 'target'"
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


def _unclear(names: Sequence[str], path: Path) -> str:
    shown = ", ".join(f"{name!r:.60}" for name in names)
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
