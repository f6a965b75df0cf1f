"""The lines of a UTF-8 file, and those of a text."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from flambeau.errors import InputError

_SHOWN_BYTES = 20
_UTF16, _UTF8_MARK = (b"\xff\xfe", b"\xfe\xff"), b"\xef\xbb\xbf"  # byte-order marks
_OPENERS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a damaged file raises, compressed or not."""


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading; ``.gz``, ``.bz2`` and ``.xz`` are decompressed."""
    return _OPENERS.get(path.suffix.lower(), open)(path, "rb")


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Read the lines of a UTF-8 file, without line ends; see `open_bytes`.

    Only a line feed ends a line, with or without a carriage return before it. Some corpora contain
    other Unicode line separators within sentences; ``str.splitlines`` would split there and shift
    one side against the other.

    Raises:
        InputError: The file is missing, is damaged, or is not UTF-8; the message names the line and
            the bytes.
    """
    path = Path(path)
    try:
        with open_bytes(path) as file:
            content = file.read()
    except FileNotFoundError:
        raise _missing(path) from None
    except READ_ERRORS as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    utf16 = content.startswith(_UTF16)
    if utf16 or b"\0" in content:
        line = content.count(b"\n", 0, max(0, content.find(b"\0"))) + 1
        raise _utf16(path, None if utf16 else line)
    if content.startswith(_UTF8_MARK):
        content = content[3:]
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        start = content.rfind(b"\n", 0, error.start) + 1
        wrong = content[error.start : error.start + _SHOWN_BYTES].split(b"\n")[0]
        raise _not_utf8(path, number, error.start - start, wrong) from None
    lines = text.split("\n")
    if lines and not lines[-1]:  # the file ends with a line feed
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def lines_at(path: Path) -> Iterator[tuple[int, str]]:
    """Yield where each line of a UTF-8 file begins, in bytes, and the line; see `read_lines`.

    One line is in memory at a time. The file is not compressed.

    Raises:
        InputError: As for `read_lines`.
    """
    end = 0
    try:
        with open(path, "rb") as file:
            for number, content in enumerate(file, start=1):
                begin, end = end, end + len(content)
                if number == 1 and content.startswith(_UTF16):
                    raise _utf16(path, None)
                if b"\0" in content:
                    raise _utf16(path, number)
                mark = 3 if number == 1 and content.startswith(_UTF8_MARK) else 0
                line = content[mark:].removesuffix(b"\n")
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    wrong = line[error.start : error.start + _SHOWN_BYTES]
                    raise _not_utf8(path, number, error.start, wrong) from None
                yield begin + mark, text.removesuffix("\r")
    except FileNotFoundError:
        raise _missing(path) from None
    except READ_ERRORS as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _missing(path: Path) -> InputError:
    return InputError(f"There is no file {path} (current folder: {Path.cwd()}). Check the path.")


def _utf16(path: Path, line: int | None) -> InputError:
    """Return the error of a file in UTF-16: with its mark, or with NUL characters in a line."""
    found = (
        "begins with the byte-order mark of UTF-16"
        if line is None
        else f"has NUL characters in line {line}, as UTF-16 has"
    )
    return InputError(
        f"{path} {found}, so it is not UTF-8. Save it as UTF-8; `iconv -f UTF-16 -t UTF-8` "
        "converts UTF-16 (`-f UTF-16LE` if there is no byte-order mark)."
    )


def _not_utf8(path: Path, line: int, at: int, wrong: bytes) -> InputError:
    return InputError(
        f"{path}, line {line}: byte {at + 1} of the line is not UTF-8 ({wrong!r}). Save the file "
        "as UTF-8; `iconv -f LATIN1 -t UTF-8` converts Latin-1."
    )


def text_of_file(path: str | os.PathLike[str]) -> str:
    """Return the text of a UTF-8 file, its lines joined by line feeds; see `read_lines`."""
    return "\n".join(read_lines(path))


def lines_of(text: str) -> list[str]:
    """Return the lines of a document, without line ends. Only a line feed ends a line.

    Other Unicode line separators are part of the text; ``str.splitlines`` would split there.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    if len(lines) > 1 and not lines[-1]:  # the text ends with a line feed
        lines.pop()
    return lines
