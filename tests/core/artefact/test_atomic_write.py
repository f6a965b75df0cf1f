"""A folder that is written is complete or absent, whatever interrupts the write."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flambeau import atomic_write
from flambeau.atomic_write import atomic_folder, clean_leftovers
from flambeau.errors import StorageError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_appears_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "down" / "export"
    with atomic_folder(target) as part:
        assert part.parent == target.parent
        assert not target.exists()
        (part / "sub").mkdir()
        (part / "sub" / "file").write_text("x")
    assert (target / "sub" / "file").read_text() == "x"
    assert names(target.parent) == ["export"]


def test_an_error_keeps_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "export"
    with atomic_folder(target) as part:
        (part / "file").write_text("old")

    def fail_halfway() -> None:
        with atomic_folder(target) as part:
            (part / "file").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert (target / "file").read_text() == "old"
    assert names(tmp_path) == ["export"]


def test_an_earlier_folder_is_replaced_not_merged(tmp_path: Path) -> None:
    target = tmp_path / "export"
    for name in ("old", "new"):
        with atomic_folder(target) as part:
            (part / name).write_text("")
    assert names(target) == ["new"]
    assert names(tmp_path) == ["export"]


def test_a_relative_target_survives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with atomic_folder(Path("export")):
        monkeypatch.chdir("/")
    assert (tmp_path / "export").is_dir()


def test_files_and_folders_are_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        log.append("part" if path.name.endswith(".part") else path.name)
        real_fsync(handle)

    def rename(self: Path, target: Path) -> Path:
        log.append("rename")
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    with atomic_folder(tmp_path / "export") as part:
        (part / "sub").mkdir()
        (part / "sub" / "a").write_text("a")
    assert log == ["a", "sub", "part", "rename", tmp_path.name]


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "export").write_text("mine")
    with (
        pytest.raises(StorageError, match="a file with this name exists"),
        atomic_folder(tmp_path / "export"),
    ):
        pass
    assert (tmp_path / "export").read_text() == "mine"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), r"disk is full.*B free on .*Free disk"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "quota"),
        (OSError(errno.EROFS, "Read-only file system"), r"read-only or you lack.*Choose a folder"),
        (PermissionError(errno.EACCES, "Permission denied"), "read-only or you lack permission"),
        (OSError(errno.EIO, "Input/output error"), r"Cannot write .*Input/output error"),
        # As safetensors raises it from Rust.
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk is full"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, fault: Exception, message: str) -> None:
    def fail_halfway() -> None:
        with atomic_folder(tmp_path / "runs" / "export") as part:
            (part / "half").write_text("")
            raise fault

    with pytest.raises(StorageError, match=message) as caught:
        fail_halfway()
    assert isinstance(caught.value, OSError)  # an except OSError catches it
    assert names(tmp_path / "runs") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StorageError, match="read-only"), atomic_folder(tmp_path / "export"):
            pass
    finally:
        tmp_path.chmod(0o700)


KILLED = """
import os, sys, types
from pathlib import Path

# Only the modules that it needs: the package itself would load torch, which takes seconds.
package = sys.modules["flambeau"] = types.ModuleType("flambeau")
package.__path__ = [sys.argv[3]]
from flambeau import atomic_write

def die(*_):
    os.kill(os.getpid(), 9)

if sys.argv[2] == "between":
    # Between the two renames of a replacement.
    real, count = Path.rename, 0
    def rename(self, target):
        global count
        count += 1
        if count == 2:
            die()
        return real(self, target)
    Path.rename = rename
with atomic_write.atomic_folder(Path(sys.argv[1])) as part:
    (part / "file").write_text("new")
    if sys.argv[2] == "inside":
        die()
"""


def kill(target: Path, moment: str) -> None:
    package = Path(atomic_write.__file__).parent
    answer = subprocess.run([sys.executable, "-c", KILLED, target, moment, package], check=False)
    assert answer.returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["inside", "between"])
def test_a_killed_write_keeps_the_old_folder(tmp_path: Path, moment: str) -> None:
    target = tmp_path / "export"
    with atomic_folder(target) as part:
        (part / "file").write_text("old")
    kill(target, moment)
    assert len(names(tmp_path)) == 2
    assert clean_leftovers(tmp_path)
    assert (target / "file").read_text() == "old"
    assert names(tmp_path) == ["export"]


def test_the_next_write_removes_leftovers(tmp_path: Path) -> None:
    kill(tmp_path / "one", "inside")
    assert len(names(tmp_path)) == 1
    with atomic_folder(tmp_path / "two"):
        pass
    assert names(tmp_path) == ["two"]


def leftover(parent: Path, host: str, pid: int) -> Path:
    path = parent / f".export.{host}-{pid}-0123abcd.part"
    path.mkdir()
    return path


def test_folders_of_running_processes_are_kept(tmp_path: Path) -> None:
    running = leftover(tmp_path, atomic_write._host(), os.getppid())
    other_host = leftover(tmp_path, "00000000", 1)
    foreign = tmp_path / ".export.part"
    foreign.mkdir()
    with atomic_folder(tmp_path / "export"):
        assert clean_leftovers(tmp_path) == []
    assert names(tmp_path) == sorted(["export", running.name, other_host.name, foreign.name])


def test_an_old_leftover_of_another_host_is_removed(tmp_path: Path) -> None:
    path = leftover(tmp_path, "00000000", 1)
    two_days_ago = time.time() - 2 * 86_400
    os.utime(path, (two_days_ago, two_days_ago))
    assert clean_leftovers(tmp_path) == [path]


def test_a_leftover_with_our_own_process_id_is_removed(tmp_path: Path) -> None:
    path = leftover(tmp_path, atomic_write._host(), os.getpid())
    assert clean_leftovers(tmp_path) == [path]
    assert names(tmp_path) == []


def test_a_missing_folder_has_no_leftovers(tmp_path: Path) -> None:
    assert clean_leftovers(tmp_path / "missing") == []


def test_two_processes_write_one_file_under_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, process = tmp_path / "folder" / "file", os.getpid()
    with atomic_write.replaced_file(path) as part:
        part.write_text("one")
        monkeypatch.setattr(os, "getpid", lambda: process + 1)
        atomic_write.replace_text(path, "other")
        assert path.read_text() == "other"
        assert part.read_text() == "one"
    assert path.read_text() == "one"
    with pytest.raises(KeyError), atomic_write.replaced_file(path) as part:
        part.write_text("half")
        raise KeyError
    assert path.read_text() == "one"
    assert [each.name for each in path.parent.iterdir()] == ["file"]
