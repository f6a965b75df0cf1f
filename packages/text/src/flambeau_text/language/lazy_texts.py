"""Sequences of texts that are read when they are needed, so that they need no memory."""

from __future__ import annotations

import os
import weakref
from abc import abstractmethod
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import IO, Any, overload

import numpy as np
import numpy.typing as npt

from flambeau.errors import InputError
from flambeau.progress import progress
from flambeau_text.text_lines import lines_of
from flambeau_text.tokenization.normalization import normalize

PROGRESS_FROM = 10_000_000
"""Characters from which progress is shown: a few seconds."""

Int64Array = npt.NDArray[np.int64]

FileVersion = tuple[int, int]
"""Bytes, and time of the last change in nanoseconds."""


class LazySequence(Sequence[str]):
    """A sequence whose entries are made in ``entry``; a slice is a list of them."""

    @abstractmethod
    def entry(self, index: int) -> str:
        """Return an entry; ``index`` is not negative."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self.entry(each) for each in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"Entry {index} of {len(self)}.")
        return self.entry(at)


class StoredTexts(LazySequence):
    """The documents of a UTF-8 file, each of which is read from the file when it is needed.

    Line ends and byte-order marks are those of ``read_lines``. The file must not change meanwhile.

    Args:
        path: The file, which is not compressed.
        begins: Position of the first byte of each document.
        ends: Position after its last byte.
        version: ``file_version`` of the file before the positions were found in it.
    """

    def __init__(
        self, path: Path, begins: array[int], ends: array[int], version: FileVersion
    ) -> None:
        self._path = path.absolute()
        self._begins, self._ends = begins, ends
        self._version = version
        self._file: IO[bytes] | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._begins)

    def entry(self, index: int) -> str:
        """Return a document.

        Raises:
            InputError: The file was changed or removed.
        """
        begin, end = self._begins[index], self._ends[index]
        content = self._read(self._opened(), begin, end - begin)
        text = content.decode("utf-8").replace("\r\n", "\n").removeprefix("\ufeff")
        return text if text.endswith("\n") else text.removesuffix("\r") + "\n"

    def _read(self, file: IO[bytes], begin: int, size: int) -> bytes:
        """Return bytes of the file; one read returns at most 2 GiB."""
        parts: list[bytes] = []
        while size:
            part = self._read_at(file, begin, size)
            if not part:
                raise InputError(f"{self._path} is shorter than when its documents were found.")
            parts.append(part)
            begin += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_at(self, file: IO[bytes], begin: int, size: int) -> bytes:
        # Threads, and processes that were forked, share the position in an open file.
        if hasattr(os, "pread"):
            return os.pread(file.fileno(), size, begin)
        with self._lock:  # Windows, which does not fork
            file.seek(begin)
            return file.read(size)

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            try:
                # Without a buffer, which would be read again for each document.
                self._file = open(self._path, "rb", buffering=0)  # noqa: SIM115 - kept open
            except OSError as error:
                raise InputError(f"{self._path} cannot be read any more: {error}") from error
            weakref.finalize(self, self._file.close)
        # A file that was replaced is still the old one here; one that was written to is not.
        if _version_of(os.fstat(self._file.fileno())) != self._version:
            raise InputError(
                f"{self._path} was changed after its documents were found in it. Large files are "
                "read while they are used: leave them as they are, and read the data again."
            )
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {name: each for name, each in vars(self).items() if name not in ("_file", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _file=None, _lock=Lock())


class StoredLocations(LazySequence):
    """Where each document of a file begins: ``FILE, line N``.

    Args:
        path: The file.
        lines: Number of the first line of each document; None if the file is one document.
    """

    def __init__(self, path: Path, lines: array[int] | None) -> None:
        self._path, self._lines = path, lines

    def __len__(self) -> int:
        return 1 if self._lines is None else len(self._lines)

    def entry(self, index: int) -> str:
        return (
            str(self._path) if self._lines is None else f"{self._path}, line {self._lines[index]}"
        )


class Joined(LazySequence):
    """The entries of several sequences, one after the other."""

    def __init__(self, parts: Sequence[Sequence[str]]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def entry(self, index: int) -> str:
        at = int(np.searchsorted(self._ends, index, "right"))
        return self._parts[at][index - (int(self._ends[at - 1]) if at else 0)]


class Chosen(LazySequence):
    """Some entries of a sequence.

    Args:
        entries: The sequence.
        rows: Their indices.
    """

    def __init__(self, entries: Sequence[str], rows: Int64Array) -> None:
        self._entries, self._rows = entries, rows

    def __len__(self) -> int:
        return len(self._rows)

    def entry(self, index: int) -> str:
        return self._entries[int(self._rows[index])]


class NormalizedLines(Collection[str]):
    """All lines of some texts in a Unicode form, each made when it is needed.

    Args:
        texts: The texts.
        form: As for `normalize`.
        n_lines: Number of their lines.
        n_characters: Number of their characters; a bar shows the progress through long texts.
    """

    def __init__(self, texts: Sequence[str], form: str, n_lines: int, n_characters: int) -> None:
        self._texts, self._form = texts, form
        self._n_lines, self._n_characters = n_lines, n_characters

    def __len__(self) -> int:
        return self._n_lines

    def __iter__(self) -> Iterator[str]:
        lines = (line for text in self._texts for line in lines_of(text))
        if self._n_characters < PROGRESS_FROM:
            yield from (normalize(line, self._form) for line in lines)
            return
        with progress(self._n_characters, "fitting the tokenizer", "character") as done:
            for line in lines:
                yield normalize(line, self._form)
                done(len(line) + 1)

    def __contains__(self, line: object) -> bool:
        return any(line == each for each in self)


def joined(one: Sequence[str], other: Sequence[str]) -> Sequence[str]:
    """Return the entries of both: a list of lists, and a sequence that reads where one does."""
    if isinstance(one, list) and isinstance(other, list):
        return one + other
    parts = [part for part in (one, other) if len(part)]
    return parts[0] if len(parts) == 1 else Joined(parts)


def chosen_of(entries: Sequence[str], rows: Any) -> Sequence[str]:
    """Return some entries: a list of those of a list, and a sequence that reads where one does."""
    if isinstance(entries, list):
        return [entries[row] for row in rows.tolist()]
    return Chosen(entries, np.asarray(rows, np.int64))


def digests_of(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """Return a hash for each text.

    It has 64 bits: among ten million texts, two different ones have equal hashes with a probability
    of 3 in a million.
    """
    found = array("Q")
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        found.append(int.from_bytes(blake2b(content, digest_size=8).digest(), "little"))
    return np.array(found, np.uint64)


def copies_as_groups(texts: Sequence[str]) -> Int64Array:
    """Return the group of each text, int64, which its copies share; in the order of first texts."""
    digests = digests_of(texts)
    by_digest = np.argsort(digests, kind="stable")
    is_first = np.ones(len(digests), bool)
    is_first[1:] = digests[by_digest[1:]] != digests[by_digest[:-1]]
    # Sorting is stable, so the first of each digest is the first text; its rank is the group.
    group = np.empty(int(is_first.sum()), np.int64)
    group[np.argsort(by_digest[is_first])] = np.arange(len(group))
    found = np.empty(len(digests), np.int64)
    found[by_digest] = group[is_first.cumsum() - 1]
    return found


def file_version(path: Path) -> FileVersion:
    """Return size and time of the last change of a file, which differ after a change."""
    return _version_of(path.stat())


def _version_of(found: os.stat_result) -> FileVersion:
    return found.st_size, found.st_mtime_ns
