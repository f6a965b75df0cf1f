"""Atomic writes: a folder or file is complete or absent, even if the process is killed.

A folder is written beside its target under a temporary name, flushed to disk with fsync, and
renamed. A temporary name contains the host and the process id, so that the leftovers of a killed
process can be distinguished from a write in progress.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from flambeau.errors import StorageError
from flambeau.wording import format_bytes

_LEFTOVER = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.(?P<kind>part|old)"
)
# No write takes a day: an older temporary folder is a leftover, even if its process is unknown.
_MAX_AGE_S = 86_400
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
_in_use: set[str] = set()


@contextmanager
def atomic_folder(target: Path) -> Generator[Path]:
    """Yield an empty folder; when the block ends without an error it is renamed to ``target``.

    An existing folder ``target`` is replaced: check beforehand that this is allowed. After an
    error no temporary files remain and an existing ``target`` is unchanged.

    Raises:
        StorageError: The disk is full, the location is not writable, or ``target`` is a file.

    Example:
        >>> with atomic_folder(Path("runs/pets")) as folder:  # doctest: +SKIP
        ...     (folder / "notes.txt").write_text("all or nothing")
    """
    target = Path(os.path.abspath(target))
    if target.exists() and not target.is_dir():
        raise StorageError(
            f"Cannot write the folder {target}: a file with this name exists. Move the file, or "
            "choose another folder."
        )
    part = _sibling(target, "part")
    _in_use.add(part.name)
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            clean_leftovers(target.parent)
            part.mkdir()
            yield part
            _flush(part)
            _replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        _in_use.discard(part.name)


def replace_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it, so that ``path`` is complete.

    Folders are created. It is not flushed to disk: after a power failure the file may be the old
    one. Line ends are written as they are.

    Args:
        path: The file; it is replaced.
        text: Its content, written as UTF-8.

    Raises:
        StorageError: The file cannot be written; an existing one is unchanged.
    """
    with replaced_file(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


@contextmanager
def replaced_file(path: Path) -> Generator[Path]:
    """Yield a path beside ``path``; the file written to it is renamed when the block has ended.

    Folders are created. The name contains the process id, so that two processes that write the same
    file do not mix their content. After an error no temporary file remains.

    Args:
        path: The file; it is replaced.

    Raises:
        StorageError: The file cannot be written; an existing one is unchanged.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            os.replace(part, path)
    finally:
        with suppress(OSError):  # already renamed, or the folder refuses every access
            part.unlink()


def remove_folder(folder: Path) -> None:
    """Remove ``folder`` in one step, as seen by other processes; errors are ignored.

    The folder is renamed to a temporary name before its files are deleted: if the process is
    killed in between, a leftover remains instead of an incomplete folder.
    """
    part = _sibling(Path(os.path.abspath(folder)), "part")
    _in_use.add(part.name)
    try:
        with suppress(OSError):
            folder.rename(part)
        shutil.rmtree(part, ignore_errors=True)
    finally:
        _in_use.discard(part.name)


def clean_leftovers(parent: Path) -> list[Path]:
    """Remove the temporary folders of killed writes in ``parent`` and return their paths.

    An existing folder is replaced with two renames. If a write was killed between these renames,
    the old folder is restored.
    """
    cleaned: list[Path] = []
    with suppress(OSError):  # the folder does not exist or is not readable
        for path in sorted(parent.iterdir()):
            match = _LEFTOVER.fullmatch(path.name)
            if match is None or not _is_leftover(path, match["host"], int(match["pid"])):
                continue
            target = parent / match["name"]
            with suppress(OSError):  # another process may remove it at the same time
                if match["kind"] == "old" and not target.exists():
                    path.rename(target)
                else:
                    shutil.rmtree(path)
                cleaned.append(path)
    return cleaned


def _replace(part: Path, target: Path) -> None:
    if target.exists():
        # Python has no system call that exchanges two folders. Between the two renames the target
        # is absent for some microseconds; if the process is killed there, clean_leftovers restores
        # it.
        old = _sibling(target, "old")
        _in_use.add(old.name)
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
            _in_use.discard(old.name)
    else:
        part.rename(target)
    _flush_folder(target.parent)


def _sibling(target: Path, kind: str) -> Path:
    token = os.urandom(4).hex()
    return target.with_name(f".{target.name}.{_host()}-{os.getpid()}-{token}.{kind}")


def _host() -> str:
    return blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


def _is_leftover(path: Path, host: str, pid: int) -> bool:
    if path.name in _in_use:
        return False
    try:
        if time.time() - path.stat().st_mtime > _MAX_AGE_S:
            return True
    except OSError:
        return False  # removed by another process
    return host == _host() and is_other_process_alive(pid) is False


def is_other_process_alive(pid: int) -> bool | None:
    """Return whether another process of this machine has this id; None if that cannot be known.

    The id of this process itself counts as that of a process that has ended: a restarted container
    often reuses the id of the killed process.

    Args:
        pid: Id of the process.
    """
    if pid == os.getpid():
        return False
    if _is_windows():  # there os.kill(pid, 0) ends the process
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _is_windows() -> bool:
    return os.name == "nt"


def _flush(folder: Path) -> None:
    for root, _, files in os.walk(folder, topdown=False):
        for name in files:
            with open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())
        _flush_folder(Path(root))


def _flush_folder(folder: Path) -> None:
    if _is_windows():
        return  # Windows cannot open folders; NTFS records renames in its journal
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def storage_errors(target: Path) -> Generator[None]:
    """Convert operating-system errors in the ``with`` block to StorageErrors.

    Errors that safetensors reports only as text are converted, too.

    Raises:
        StorageError: ``target`` could not be written; the message says why and what to do.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        code = _error_number(error)
        if code is None:
            raise
        raise StorageError(_message(code, target, error)) from error


def check_writable(target: Path) -> None:
    """Raise an error if the file cannot be written, before the work whose result it takes.

    Raises:
        StorageError: See above.
    """
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        existed = target.exists()
        with target.open("ab"):
            pass
        if not existed:
            target.unlink()


def _error_number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # safetensors writes in Rust; its SafetensorError has the error number only in the text.
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def _message(code: int, target: Path, error: Exception) -> str:
    if code in _DISK_FULL:
        return (
            f"Cannot write {target}: the disk is full or a quota is exceeded ({_free(target)}). No "
            "partial files remain. Free disk space, keep fewer checkpoints, or choose a folder on "
            "another disk."
        )
    if code in _NOT_WRITABLE:
        return (
            f"Cannot write {target}: {target.parent} is read-only or you lack permission "
            f"({error}). Choose a folder that you can write to, or change its permissions."
        )
    return (
        f"Cannot write {target}: {error}. No partial files remain. Choose another folder, or fix "
        "the cause."
    )


def _free(target: Path) -> str:
    for folder in target.parents:
        with suppress(OSError):
            return f"{format_bytes(shutil.disk_usage(folder).free)} free on {folder}"
    return "free space unknown"
