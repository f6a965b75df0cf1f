"""``MappedStore``: arrays in memory-mapped files, shared by all processes of a machine."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.atomic_write import atomic_folder, remove_folder, storage_errors
from flambeau.cache_folder import default_folder
from flambeau.errors import StorageError
from flambeau.wording import format_bytes

# Share of the free disk space (plus that of older arrays): the rest is for checkpoints and others.
_DISK_SHARE = 0.5
_ARRAY, _RECORD = "array.bin", "record.json"


@dataclass(frozen=True)
class MappedArray:
    """An array of a store.

    Attributes:
        values: uint8 ``(rows, …)``, mapped copy-on-write: processes share one copy, and writing
            into the tensor does not change the file.
        details: JSON values that the writer stored with the array.
    """

    values: Tensor
    details: Mapping[str, Any]


class MappedStore:
    """A folder of uint8 arrays by key; the least recently used ones are removed for new ones.

    An array is written atomically (to a temporary folder, flushed and renamed). If several
    processes need it, one writes it and the others wait.

    Args:
        name: Name of the sub-folder of this kind of arrays.
        folder: The cache folder; by default `default_folder`.
        advice: The end of error messages: what the user can do if the arrays do not fit on the
            disk or cannot be read back.
    """

    def __init__(
        self, name: str, folder: str | os.PathLike[str] | None = None, *, advice: str = ""
    ) -> None:
        self.root = Path(os.path.abspath(default_folder() if folder is None else folder)) / name
        self._advice = advice

    def available_bytes(self) -> int:
        """Return the largest allowed size of one array in bytes, if older ones are removed."""
        used = sum(size for _, size, _ in self.list_arrays())
        for existing in (self.root, *self.root.parents):
            with suppress(OSError):
                return int(_DISK_SHARE * (shutil.disk_usage(existing).free + used))
        return 0

    def load(
        self,
        key: str,
        row_shape: Sequence[int],
        write: Callable[[IO[bytes]], Mapping[str, Any]],
        *,
        most_rows: int,
        accepts: Callable[[Mapping[str, Any]], bool] = lambda details: True,
    ) -> MappedArray:
        """Return the array of ``key``, which is written first if it does not exist.

        Args:
            key: Identifies the content, a valid file name: a hash of everything it depends on.
            row_shape: Shape of one row.
            write: Writes the rows into the open file, and returns the details to be stored.
            most_rows: Largest number of rows that ``write`` may write; space is made for them.
            accepts: Whether an existing array with these details may be used; else it is written
                again.

        Raises:
            StorageError: There is too little disk space, or the folder cannot be written.
        """
        path, shape = self.root / key, tuple(row_shape)
        found = _read(path, shape, accepts)
        if found is not None:
            return found
        with storage_errors(path):
            self.root.mkdir(parents=True, exist_ok=True)
        with _exclusive_lock(self.root / f"{key}.lock"):
            found = _read(path, shape, accepts)  # another process may have written it
            if found is None:
                self._free_space(most_rows * math.prod(shape))
                _write(path, shape, write)
                found = _read(path, shape, accepts)
        if found is None:
            raise StorageError(
                f"{path} was written but cannot be read back. Check the disk.{self._advice}"
            )
        return found

    def list_arrays(self) -> list[tuple[float, int, Path]]:
        """Return the last use, size in bytes and folder of each array, the longest unused first."""
        found: list[tuple[float, int, Path]] = []
        with suppress(OSError):
            for path in self.root.iterdir():
                with suppress(OSError):  # not an array, or one that is being removed
                    used = (path / _RECORD).stat().st_mtime
                    found.append((used, (path / _ARRAY).stat().st_size, path))
        return sorted(found)

    def _free_space(self, needed: int) -> None:
        """Remove the least recently used arrays until ``needed`` bytes fit into the allowed share.

        Raises:
            StorageError: They do not fit even into an empty folder.
        """
        allowed = self.available_bytes()
        if needed > allowed:
            raise StorageError(
                f"The {self.root.name} need {format_bytes(needed)}, but {self.root} may use "
                f"{format_bytes(allowed)} ({_DISK_SHARE:.0%} of the free space on its disk)."
                f"{self._advice}"
            )
        arrays = self.list_arrays()
        total = sum(size for _, size, _ in arrays)
        for _, size, path in arrays:
            if total + needed <= allowed:
                return
            remove_folder(path)  # processes that have it mapped can still read it
            total -= size


def _write(
    path: Path, shape: tuple[int, ...], write: Callable[[IO[bytes]], Mapping[str, Any]]
) -> None:
    with atomic_folder(path) as folder:
        with (folder / _ARRAY).open("wb") as file:
            details = dict(write(file))
            rows = file.tell() // math.prod(shape)
        record = {"key": path.name, "shape": [rows, *shape], "details": details}
        (folder / _RECORD).write_text(json.dumps(record), encoding="utf-8")


def _read(
    path: Path, shape: tuple[int, ...], accepts: Callable[[Mapping[str, Any]], bool]
) -> MappedArray | None:
    """Return the array; None if it is missing, damaged, not accepted or has another key."""
    try:
        record: dict[str, Any] = json.loads((path / _RECORD).read_text(encoding="utf-8"))
        whole = (int(record["shape"][0]), *shape)
        complete = (path / _ARRAY).stat().st_size == math.prod(whole)
        if record["key"] != path.name or tuple(record["shape"]) != whole or not complete:
            return None
        if not accepts(record["details"]):
            return None
        if not whole[0]:
            return MappedArray(torch.empty(whole, dtype=torch.uint8), record["details"])
        # "c" is copy-on-write: pages are shared until they are written to.
        values = np.memmap(path / _ARRAY, np.uint8, "c", shape=whole)
        with suppress(OSError):
            os.utime(path / _RECORD)  # the time of last use decides which array is removed first
        return MappedArray(cast(Any, torch).from_numpy(values), record["details"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


@contextmanager
def _exclusive_lock(path: Path) -> Generator[None]:
    """Prevent other processes of this machine from running the ``with`` block at the same time.

    If the process ends, the operating system releases the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two processes may write the same file, and the last one remains
        yield
        return
    while True:
        with storage_errors(path):
            file = path.open("wb")
        with file:
            with suppress(OSError):  # a file system without locks: as above
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_same_file(path, file.fileno()):
                continue  # the previous holder of the lock removed the file
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_same_file(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False
