"""Files of one sentence a line; every way in which reading them fails names file and line."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from flambeau.errors import InputError

_SHOWN_BYTES = 20
# How far around a gap of two files the first lines that do not fit are looked for.
_SHOWN_LINES = 3


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a UTF-8 file without their ends; ``.gz`` is unpacked.

    Lines end at a line feed, with or without a carriage return before it, and nowhere else: some
    corpora have other Unicode line ends inside of sentences, at which ``str.splitlines`` would
    shift one side against the other.

    Raises:
        InputError: The file is missing, is no gzip, or is not UTF-8; with the line and the bytes.
    """
    path = Path(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"There is no file {path} (looked from {Path.cwd()}). Check the path."
        ) from None
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if content.startswith(b"\xef\xbb\xbf"):  # the mark that some editors put first
        content = content[3:]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        begin = content.rfind(b"\n", 0, error.start) + 1
        wrong = content[error.start : error.start + _SHOWN_BYTES].split(b"\n")[0]
        raise InputError(
            f"{path}, line {number}: byte {error.start - begin + 1} of the line is no UTF-8 "
            f"({wrong!r}). Save the file as UTF-8; `iconv -f LATIN1 -t UTF-8` mends older ones."
        ) from None
    lines = text.split("\n")
    if lines and not lines[-1]:  # what follows the last line feed is no line
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_pair(
    source: str | os.PathLike[str], target: str | os.PathLike[str]
) -> tuple[list[str], list[str]]:
    """The lines of two files that belong together, line by line.

    Raises:
        InputError: They have different numbers of lines; with the lines around the first gap.
    """
    sources, targets = read_lines(source), read_lines(target)
    for path, lines, others in ((source, sources, targets), (target, targets, sources)):
        if others and not lines:
            raise InputError(f"{path} is empty. Give a file with a sentence a line.")
    if len(sources) != len(targets):
        raise InputError(
            f"{source} has {len(sources):,} lines and {target} {len(targets):,}, but line n of the "
            f"one must belong to line n of the other. {_first_gap(sources, targets)}"
        )
    if not sources:
        raise InputError(f"{source} and {target} are empty. Give files with a sentence a line.")
    return sources, targets


def _first_gap(sources: list[str], targets: list[str]) -> str:
    """Where the files part, as far as it shows: an empty line on one side, else the shorter end."""
    for number, (one, other) in enumerate(zip(sources, targets, strict=False), start=1):
        if bool(one.strip()) != bool(other.strip()):
            empty = "target" if one.strip() else "source"
            return (
                f"Line {number} is empty in the {empty} alone: {one!r:.60} and {other!r:.60}. Look "
                "there first."
            )
    shorter = min(len(sources), len(targets))
    longer, name = (sources, "source") if len(sources) > shorter else (targets, "target")
    begin = max(0, shorter - 1)
    shown = "; ".join(
        f"line {begin + offset + 1}: {line!r:.60}"
        for offset, line in enumerate(longer[begin : begin + _SHOWN_LINES])
    )
    return f"Only the {name} goes on after line {shorter:,} ({shown})."


def reads_like_a_sentence(name: str) -> bool:
    """Whether what stands where a column's name is expected is rather a first sentence."""
    return " " in name.strip() or name.strip()[-1:] in (".", "!", "?")


def language_of(path: str | os.PathLike[str]) -> str | None:
    """The language that a file's name ends in: "de" for ``train.de`` and ``train.de.gz``."""
    name = Path(path).name.removesuffix(".gz")
    _, dot, ending = name.rpartition(".")
    is_code = dot and ending.isascii() and ending.isalpha() and 2 <= len(ending) <= 3
    return ending.lower() if is_code and ending.lower() not in ("txt", "tsv", "csv") else None
