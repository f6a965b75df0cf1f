"""Read the documents of a language model: from files, folders, tables and iterables."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from flambeau.data.samples import Problem, Samples
from flambeau.data.tables import Table
from flambeau.errors import InputError, did_you_mean
from flambeau_text.checked_text import checked_text, is_missing_text, refuse_names
from flambeau_text.file_kinds import JSON_SUFFIXES, TABLE_SUFFIXES, suffix_of
from flambeau_text.language.lazy_texts import (
    StoredLocations,
    StoredTexts,
    chosen_of,
    file_version,
    joined,
)
from flambeau_text.text_lines import lines_at, read_lines

Unit = Literal["file", "paragraph", "line"]
"""What one document of a text file is."""

UNITS: tuple[str, ...] = get_args(Unit)

_FEWEST = 10
"""A single file is read as paragraphs or lines of which there are at least this number."""

Document = tuple[int, int, int | None]
"""Number of the first line of a document, where it begins, and where it ends (None is the end of
the file)."""

LARGE = 64_000_000
"""Bytes of a text file from which its documents are not kept in memory."""

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".tokens")
_NOT_TEXT = {
    **dict.fromkeys(TABLE_SUFFIXES, "a table. Read one of its columns: LanguageModelData.from_csv"),
    ".json": "JSON. Write an object with a text on each line and name the file .jsonl",
}


@dataclass
class Documents:
    """Documents that were found, before they are split.

    Attributes:
        texts: The text of each document; lines end with a line feed.
        locations: Where each document was found, for messages.
        problems: Documents that were left out, with the reason.
        notes: Lines of the report on how the input was read.
        left_out: Row of each problem in the input.
    """

    texts: Sequence[str] = field(default_factory=list[str])
    locations: Sequence[str] = field(default_factory=list[str])
    problems: list[Problem] = field(default_factory=list[Problem])
    notes: list[str] = field(default_factory=list[str])
    left_out: list[int] = field(default_factory=list[int])

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def n_rows(self) -> int:
        """Number of documents in the input, with those that were left out."""
        return len(self.texts) + len(self.problems)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Row of each document in the input, in which those that were left out count."""
        return np.delete(np.arange(self.n_rows), self.left_out)

    def leave_out(self, location: str) -> None:
        """Report a document without text."""
        self.left_out.append(self.n_rows)
        self.problems.append(Problem(location, "no text"))

    def add(self, text: Any, location: str) -> None:
        """Add a document; one without text is reported instead.

        Raises:
            InputError: It is not a text, or has NUL characters or unpaired surrogates.
        """
        if is_missing_text(text) or not (text := checked_text(text, location)).strip():
            self.leave_out(location)
            return
        cast("list[str]", self.texts).append(text)
        cast("list[str]", self.locations).append(location)

    def extended(self, other: Documents) -> Documents:
        """Return the documents of both."""
        return Documents(
            joined(self.texts, other.texts),
            joined(self.locations, other.locations),
            self.problems + other.problems,
            list(dict.fromkeys(self.notes + other.notes)),
            self.left_out + [self.n_rows + row for row in other.left_out],
        )

    def as_samples(self) -> Samples:
        """Return one row per document, with the columns "text" and "location"."""
        return Samples({"text": self.texts, "location": self.locations}, tuple(self.problems))


# ---------------------------------------------------------------- files


def read_documents(
    paths: Sequence[Path], unit: Unit | None, column: str | None = None
) -> Documents:
    """Read text files, each one document, or several.

    Args:
        paths: UTF-8 files, also ``.gz``; the files of folders are read too. ``.jsonl`` files have
            one document per line.
        unit: What a document is. None: each of several files; in a single file each paragraph, or
            each line if there are fewer than ten paragraphs.
        column: Field of ``.jsonl`` files with the texts; None uses "text", or the only one.

    Raises:
        InputError: A file is missing, cannot be decoded, or is a table, or no file has text.
    """
    files = [file for path in paths for file in text_files(path)]
    for file in files:
        if (what := _NOT_TEXT.get(suffix_of(file))) is not None:
            raise InputError(f"{file} is no running text but {what}.")
    found = Documents()
    plain = [file for file in files if not _is_jsonl(file)]
    for file in files:
        if _is_jsonl(file):
            found = found.extended(_read_jsonl(file, column))
            continue
        if is_large(file):
            found = found.extended(_read_large(file, unit, len(plain)))
            continue
        lines = read_lines(file)
        chosen, why = (unit, "") if unit else unit_of(lines, len(plain))
        if why:
            found.notes.append(_note(chosen, why))
        for number, begin, end in divide(enumerate(lines), chosen):
            text = "\n".join(lines[begin:end]) + "\n"
            found.add(text, str(file) if chosen == "file" else f"{file}, line {number}")
    if not len(found):
        raise InputError(
            f"There is no text in {', '.join(map(str, paths[:3]))}. Give files with text in UTF-8."
        )
    found.notes = list(dict.fromkeys(found.notes))
    return found


def is_large(path: Path) -> bool:
    """Return whether the documents of a text file stay in it; a compressed one is in memory."""
    suffixes = {suffix_of(path), path.suffix.lower()}
    return len(suffixes) == 1 and path.is_file() and path.stat().st_size >= LARGE


def _read_large(file: Path, unit: Unit | None, n_files: int) -> Documents:
    """Return the documents of a large file, of which only the positions are in memory."""
    found = Documents()
    version = file_version(file)  # of before the scans: a file that grows meanwhile is noticed
    chosen, why = (unit, "") if unit else unit_of((line for _, line in lines_at(file)), n_files)
    if why:
        found.notes.append(_note(chosen, why))
    bounds = (array("q"), array("q"), array("q"))  # 8 bytes each, where a Python number has 32
    size = version[0]
    for document in divide(lines_at(file), chosen):
        for each, value in zip(bounds, document, strict=True):
            each.append(size if value is None else value)
    numbers, begins, ends = bounds
    texts = StoredTexts(file, begins, ends, version)
    where = StoredLocations(file, None if chosen == "file" else numbers)
    blank = [index for index, text in enumerate(texts) if not text.strip()]
    for index in blank:
        found.left_out.append(index)
        found.problems.append(Problem(where[index], "no text"))
    found.texts, found.locations = texts, where
    if blank:
        rows = np.delete(np.arange(len(texts)), blank)
        found.texts, found.locations = chosen_of(texts, rows), chosen_of(where, rows)
    return found


def _note(unit: str, why: str) -> str:
    return (
        f"documents: each {unit} is one, because {why}; choose with LanguageOptions(document=…) or "
        f"--document {'|'.join(UNITS)}"
    )


def text_files(path: Path) -> list[Path]:
    """Return a file itself, or the text files in a folder and its subfolders, sorted.

    Raises:
        InputError: The path does not exist, or the folder has no text files.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(f"There is no file or folder {path}. Check the path.")
    files = sorted(each for each in path.rglob("*") if each.is_file() and is_text_file(each))
    visible = [each for each in files if not _is_hidden(each.relative_to(path))]
    if not visible:
        raise InputError(
            f"{path} has no text files ({', '.join(TEXT_SUFFIXES)}, .jsonl, also compressed). Give "
            "the files themselves if they have another ending."
        )
    return visible


def is_text_file(path: Path) -> bool:
    """Return whether the ending of a file is that of a text, also of a compressed one."""
    return suffix_of(path) in (*TEXT_SUFFIXES, *JSON_SUFFIXES)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_jsonl(path: Path) -> bool:
    return suffix_of(path) in JSON_SUFFIXES


def divide(lines: Iterable[tuple[int, str]], unit: str) -> Iterator[Document]:
    """Yield the documents of a file.

    Blank lines after a paragraph belong to it, so that no line is lost.

    Args:
        lines: Where each line begins, and the line.
        unit: What a document is.
    """
    if unit == "file":
        begin = next((at for at, _ in lines), 0)
        for _ in lines:  # reading checks the file
            pass
        yield 1, begin, None
        return
    first = begin = 0
    filled = blank = False
    for number, (at, line) in enumerate(lines, start=1):
        if not first:
            first, begin = 1, at
        is_blank = not line.strip()
        if filled and (unit == "line" or (blank and not is_blank)):
            yield first, begin, at
            first, begin, filled = number, at, False
        filled = filled or not is_blank
        blank = is_blank
    if first:
        yield first, begin, None


def unit_of(lines: Iterable[str], n_files: int) -> tuple[Unit, str]:
    """Return what a document of a file is, and the reason.

    Args:
        lines: The lines of the file.
        n_files: Number of files that are read.
    """
    if n_files > 1:
        return "file", ""
    filled = 0

    def counted() -> Iterator[tuple[int, str]]:
        nonlocal filled
        for line in lines:
            filled += bool(line.strip())
            yield 0, line

    paragraphs = sum(1 for _ in divide(counted(), "paragraph"))
    if paragraphs >= _FEWEST:
        return "paragraph", f"a single file has {paragraphs:,} paragraphs between blank lines"
    if filled >= _FEWEST:
        return "line", f"a single file has {filled:,} lines, but only {paragraphs} paragraphs"
    return "file", f"it has only {filled} lines"


def _read_jsonl(path: Path, column: str | None) -> Documents:
    found = Documents()
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number} is not JSON: {error.msg} at character {error.pos + 1}. "
                "Each line must be one object with a text."
            ) from None
        where = f"{path}, line {number}"
        found.add(text_of(value, where, column), where)
    return found


# ---------------------------------------------------------------- tables and iterables


def read_column(table: Table, column: str | None) -> Documents:
    """Read the documents in a column of a table; see `text_column`."""
    name = text_column(table.names, column, table.name)
    found = Documents()
    for row, text in enumerate(table.column(name)):
        found.add(text, f"{table.name}, row {row}")
    if not len(found):
        raise InputError(f"The column {name!r} of {table.name} has no text.")
    return found


def text_column(names: Sequence[str], wanted: str | None, where: str) -> str:
    """Return the column with the texts: the wanted one, else "text", else the only one.

    Raises:
        InputError: There is no such column, or none was named and several could be meant.
    """
    if wanted is not None:
        if wanted not in names:
            raise InputError(f"{where} has no column {wanted!r}. {did_you_mean(wanted, names)}")
        return wanted
    if "text" in names:
        return "text"
    if len(names) == 1:
        return names[0]
    raise InputError(
        f"{where} has the columns {', '.join(names[:8])}, none of them named 'text'. Name the "
        "column with the documents: text=… or --text NAME."
    )


def read_items(items: Iterable[Any], column: str | None = None) -> Documents:
    """Read documents from an iterable of texts, or of mappings with a text."""
    if isinstance(items, str | bytes):
        raise InputError(
            "One text was given in place of several documents. Give a list: "
            "LanguageModelData.from_texts([text])."
        )
    refuse_names(items, "documents", "LanguageModelData.from_df(…)")
    found = Documents()
    for index, item in enumerate(items):
        text = text_of(item, f"document {index}", column) if isinstance(item, Mapping) else item
        found.add(text, f"document {index}")
    if not len(found):
        raise InputError("There are no documents with text. Give at least two texts.")
    return found


def text_of(value: Any, where: str, column: str | None = None) -> Any:
    """Return the text of a mapping: of the named field, else of "text", else of the only one."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {value!r:.60} is neither a text nor a mapping with one.")
    fields = cast("Mapping[str, Any]", value)
    return fields[text_column([str(name) for name in fields], column, where)]
