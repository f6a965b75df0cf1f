"""Read text files with one sentence per line; errors name the file and the line."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from flambeau.errors import InputError
from flambeau_text.languages import language_code

_SHOWN_BYTES = 20
_SHOWN_LINES = 3
_SIDES = ("src", "tgt", "trg")  # in this order source and target


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Read the lines of a UTF-8 file, without line ends; a ``.gz`` file is decompressed.

    Only a line feed ends a line, with or without a carriage return before it. Some corpora contain
    other Unicode line separators within sentences; ``str.splitlines`` would split there and shift
    one side against the other.

    Raises:
        InputError: The file is missing, is not valid gzip, or is not UTF-8; the message names the
            line and the bytes.
    """
    path = Path(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"There is no file {path} (current folder: {Path.cwd()}). Check the path."
        ) from None
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    if utf16 or b"\0" in content:
        line = content.count(b"\n", 0, max(0, content.find(b"\0"))) + 1
        found = (
            "begins with the byte-order mark of UTF-16"
            if utf16
            else f"has NUL characters in line {line}, as UTF-16 has"
        )
        raise InputError(
            f"{path} {found}, so it is not UTF-8. Save it as UTF-8; `iconv -f UTF-16 -t UTF-8` "
            "converts UTF-16 (`-f UTF-16LE` if there is no byte-order mark)."
        )
    if content.startswith(b"\xef\xbb\xbf"):  # the byte-order mark
        content = content[3:]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        start = content.rfind(b"\n", 0, error.start) + 1
        wrong = content[error.start : error.start + _SHOWN_BYTES].split(b"\n")[0]
        raise InputError(
            f"{path}, line {number}: byte {error.start - start + 1} of the line is not UTF-8 "
            f"({wrong!r}). Save the file as UTF-8; `iconv -f LATIN1 -t UTF-8` converts Latin-1."
        ) from None
    lines = text.split("\n")
    if lines and not lines[-1]:  # the file ends with a line feed
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


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
