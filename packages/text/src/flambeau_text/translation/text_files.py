"""Read two text files whose lines correspond; errors name the file and the line."""

from __future__ import annotations

import os
from pathlib import Path

from flambeau.errors import InputError
from flambeau_text.languages import language_code
from flambeau_text.text_lines import read_lines

_SHOWN_LINES = 3
_SIDES = ("src", "tgt", "trg")  # in this order source and target


def read_parallel(
    source: str | os.PathLike[str], target: str | os.PathLike[str]
) -> tuple[list[str], list[str]]:
    """Read two files in which line n of one is the translation of line n of the other.

    Raises:
        InputError: The files have different numbers of lines, or are empty; the message shows the
            first line that is empty in one file only, or the end of the shorter file.
    """
    sources, targets = read_lines(source), read_lines(target)
    for path, lines, others in ((source, sources, targets), (target, targets, sources)):
        if others and not lines:
            raise InputError(f"{path} is empty. Give a file with one sentence per line.")
    if len(sources) != len(targets):
        raise InputError(
            f"{source} has {len(sources):,} lines and {target} {len(targets):,}, but line n of the "
            f"one must be the translation of line n of the other. {_first_gap(sources, targets)}"
        )
    if not sources:
        raise InputError(f"{source} and {target} are empty. Give files with one sentence per line.")
    return sources, targets


def _first_gap(sources: list[str], targets: list[str]) -> str:
    """Describe the first line that is empty in one file only, or the end of the shorter file."""
    for number, (one, other) in enumerate(zip(sources, targets, strict=False), start=1):
        if bool(one.strip()) != bool(other.strip()):
            empty = "target" if one.strip() else "source"
            return (
                f"Line {number} is empty in the {empty} only: {one!r:.60} and {other!r:.60}. Check "
                "the files there first."
            )
    shorter = min(len(sources), len(targets))
    longer, name = (sources, "source") if len(sources) > shorter else (targets, "target")
    begin = max(0, shorter - 1)
    shown = "; ".join(
        f"line {begin + offset + 1}: {line!r:.60}"
        for offset, line in enumerate(longer[begin : begin + _SHOWN_LINES])
    )
    return f"Only the {name} has more lines after line {shorter:,} ({shown})."


def reads_like_a_sentence(name: str) -> bool:
    """Return whether a column name looks like a sentence, as in a table without a header."""
    return " " in name.strip() or name.strip()[-1:] in (".", "!", "?")


def side_of(path: str | os.PathLike[str]) -> str | None:
    """Return the ending of a file that shows its side: a language, "src", "tgt" or "trg"."""
    ending = Path(path).name.removesuffix(".gz").rpartition(".")[2].lower()
    return ending if ending in _SIDES else language_of(path)


def language_of(path: str | os.PathLike[str]) -> str | None:
    """Return the language code in a file name: "de" for ``train.de`` and ``train.deu.gz``."""
    name = Path(path).name.removesuffix(".gz")
    _, dot, ending = name.rpartition(".")
    return language_code(ending) if dot else None
