"""Folders that are either complete or not there, whatever kills the process that writes them.

A folder is written beside its target under a temporary name, flushed to the disk, and renamed.
Temporary names carry machine and process, so that what a killed process left behind can be told
from what another process is writing now.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from flambeau.errors import StorageError

_LEFTOVER = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.(?P<kind>part|old)"
)
_MAX_AGE_S = 86_400  # no write takes a day: such a leftover is dead even where we cannot ask
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_open: set[str] = set()


@contextmanager
def atomic_folder(target: Path) -> Generator[Path]:
    """An empty folder to write into; it becomes ``target`` when the block ends without an error.

    A folder that is at ``target`` already is replaced, so ask before whether it may be. On an
    error nothing is left behind and the old ``target`` stays.

    Raises:
        StorageError: The disk is full, the place cannot be written, or ``target`` is a file.

    Example:
        >>> with atomic_folder(Path("runs/pets")) as folder:  # doctest: +SKIP
        ...     (folder / "notes.txt").write_text("all or nothing")
    """
    target = Path(os.path.abspath(target))
    if target.exists() and not target.is_dir():
        raise StorageError(
            f"{target} is a file, so no folder can be written there. Move it, or name another."
        )
    part = _sibling(target, "part")
    _open.add(part.name)
    try:
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            clean_leftovers(target.parent)
            part.mkdir()
            yield part
            _flush(part)
            _put_in_place(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        _open.discard(part.name)


def remove_folder(folder: Path) -> None:
    """Removes ``folder`` at once for whoever lists its parent; nothing is raised where it cannot.

    It gets a temporary name first: killed while files are deleted, it is a leftover and not a
    folder of which half is gone.
    """
    part = _sibling(Path(os.path.abspath(folder)), "part")
    _open.add(part.name)
    try:
        with suppress(OSError):
            folder.rename(part)
        shutil.rmtree(part, ignore_errors=True)
    finally:
        _open.discard(part.name)


def clean_leftovers(parent: Path) -> list[Path]:
    """Removes what killed writes left in ``parent``; the paths that were cleaned.

    A target whose replacement was killed between its two renames is put back.
    """
    cleaned: list[Path] = []
    with suppress(OSError):  # nothing to clean where there is no folder, or none that may be read
        for path in sorted(parent.iterdir()):
            match = _LEFTOVER.fullmatch(path.name)
            if match is None or not _is_dead(path, match["host"], int(match["pid"])):
                continue
            target = parent / match["name"]
            with suppress(OSError):  # another process may clean at the same time
                if match["kind"] == "old" and not target.exists():
                    path.rename(target)
                else:
                    shutil.rmtree(path)
                cleaned.append(path)
    return cleaned


def _put_in_place(part: Path, target: Path) -> None:
    if target.exists():
        # No system call that Python has exchanges two folders: between the renames the target
        # is away for some microseconds, and clean_leftovers puts it back after a kill there.
        old = _sibling(target, "old")
        _open.add(old.name)
        try:
            target.rename(old)
            try:
                part.rename(target)
            except OSError:
                old.rename(target)
                raise
            _flush_folder(target.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            _open.discard(old.name)
    else:
        part.rename(target)
    _flush_folder(target.parent)


def _sibling(target: Path, kind: str) -> Path:
    token = secrets.token_hex(4)
    return target.with_name(f".{target.name}.{_host()}-{os.getpid()}-{token}.{kind}")


def _host() -> str:
    return blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


def _is_dead(path: Path, host: str, pid: int) -> bool:
    if path.name in _open:
        return False
    try:
        if time.time() - path.stat().st_mtime > _MAX_AGE_S:
            return True
    except OSError:
        return False  # gone already
    # On Windows os.kill(pid, 0) ends the process, so only the age counts there.
    if host != _host() or os.name == "nt":
        return False
    if pid == os.getpid():
        return True  # a restarted container often has the number of the process that was killed
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _flush(folder: Path) -> None:
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            with open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(root))


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # folders cannot be opened there; NTFS keeps renames in its journal
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def explained(target: Path) -> Generator[None]:
    """Turns errors of the operating system, safetensors' too, into ones that say what to do.

    Raises:
        StorageError: ``target`` could not be written within the block.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        code = _error_number(error)
        if code is None:
            raise
        raise StorageError(_explain(code, target, error)) from error


def _error_number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # safetensors writes in Rust, and its SafetensorError carries the number in the text only.
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def _explain(code: int, target: Path, error: Exception) -> str:
    if code in _FULL:
        return (
            f"{target} could not be written: the disk is full or a quota is reached "
            f"({_free(target)}). Nothing half-written was left. Free some space, keep fewer "
            "checkpoints, or name a folder on another disk."
        )
    if code in _REFUSED:
        return (
            f"{target} could not be written: {target.parent} is read-only or not yours ({error}). "
            "Name a folder that you may write, or change its permissions."
        )
    return (
        f"{target} could not be written: {error}. Nothing half-written was left. Name another "
        "place, or mend this one."
    )


def _free(target: Path) -> str:
    for folder in target.parents:
        with suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 1e6:.1f} MB free on {folder}"
    return "free space unknown"
