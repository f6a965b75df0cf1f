"""The environments of peers: synced by uv on first use, after saying how much that is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

from flambeau_bench.peers.peer import Peer

Log = Callable[[str], None]

_STAMP = "flambeau-bench.json"
_DOWNLOAD_MB_PER_S = 10.0  # a home connection of 100 Mbit/s; with uv's cache it is far less
_UNPACKED = 1.8  # size of an environment with torch over that of its wheels (5.3 of 3.0 GB)


def python_of(peer: Peer) -> str:
    """Return the interpreter of a peer: that of its environment, or this one."""
    if not peer.is_project:
        return sys.executable
    folder = peer.folder / ".venv"
    scripts = folder / "Scripts" / "python.exe"
    return str(scripts if os.name == "nt" else folder / "bin" / "python")


def prepare(peer: Peer, log: Log) -> str:
    """Sync the environment of a peer if needed; return why it is absent, or an empty text.

    Args:
        peer: The peer.
        log: Receives a line with packages, sizes and minutes before anything is installed, and one
            afterwards.
    """
    if not peer.is_project or _is_synced(peer):
        return ""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        return "uv, which installs it, is not on the PATH (pip install uv)"
    if not (peer.folder / "uv.lock").is_file():
        return f"{peer.folder} has no uv.lock; run uv lock there"
    log(f"{peer.name}: installing {install_estimate(peer.folder / 'uv.lock')} into {peer.folder}")
    visible = sys.stderr.isatty()  # then uv's own progress is shown
    started = time.monotonic()
    done = subprocess.run(
        [
            *sync_command(uv, peer.folder),
            *(() if visible else ("--no-progress",)),
        ],
        stdout=None if visible else subprocess.PIPE,
        stderr=None if visible else subprocess.STDOUT,
        text=True,
        check=False,
        env=own_environment(),
    )
    seconds = time.monotonic() - started
    if done.returncode:
        tail = "its output is above" if visible else (done.stdout or "")[-500:].strip()
        return f"uv sync in {peer.folder} failed with exit code {done.returncode}: {tail}"
    stamp = {"lock": _lock_hash(peer), "python": _python(), "install_s": round(seconds, 1)}
    (peer.folder / ".venv" / _STAMP).write_text(json.dumps(stamp), encoding="utf-8")
    log(f"{peer.name}: installed in {seconds:.0f} s")
    return ""


def sync_command(uv: str, folder: Path) -> list[str]:
    """Return the command that syncs a project; packages of its other groups stay installed."""
    command = [uv, "sync", "--frozen", "--inexact", "--project", str(folder)]
    return [*command, "--python", sys.executable]


def own_environment() -> dict[str, str]:
    """Return the environment variables of sides and of uv.

    Those that point to the environment of the bench are left out, and the one that lets Python
    compile the programs anew in each process.
    """
    removed = {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH", "PYTHONHOME"}
    removed.add("PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in removed}


def install_estimate(lock: Path) -> str:
    """Return packages, download, disk and minutes of a lock file as text, for this platform.

    What is in uv's cache is not downloaded again and, on the same disk, takes no space twice.
    """
    packages, size = locked_wheels(lock)
    minutes = max(1, round(size / 1e6 / _DOWNLOAD_MB_PER_S / 60))
    return (
        f"{packages} packages, {size / 1e9:.1f} GB to download and {_UNPACKED * size / 1e9:.1f} GB "
        f"on disk, about {minutes} min at {_DOWNLOAD_MB_PER_S:.0f} MB/s (less with uv's cache),"
    )


def locked_wheels(lock: Path) -> tuple[int, int]:
    """Return number of packages and bytes of wheels in a lock file, for this platform.

    Packages for other systems are left out by the names of their wheels alone, so the number is
    an upper bound.
    """
    entries = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    sizes = [_wheel_bytes(entry.get("wheels", ())) for entry in entries]
    found = [size for size in sizes if size]
    return len(found), sum(found)


def _wheel_bytes(wheels: list[dict[str, object]]) -> int:
    system, machine = (
        sysconfig.get_platform().split("-")[0],
        sysconfig.get_platform().split("-")[-1],
    )
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    largest = 0
    for wheel in wheels:
        name = str(wheel["url"]).rpartition("/")[2]
        interpreter, _, target = name.removesuffix(".whl").split("-")[-3:]
        here = target == "any" or (
            machine in target
            and ("linux" if system == "linux" else "macosx" if system == "macosx" else "win")
            in target
            and "musl" not in target
        )
        if here and (interpreter == python or interpreter.startswith("py") or "abi3" in name):
            largest = max(largest, int(str(wheel.get("size", 0))))
    return largest


def _is_synced(peer: Peer) -> bool:
    path = peer.folder / ".venv" / _STAMP
    if not (path.is_file() and Path(python_of(peer)).exists()):
        return False
    stamp = json.loads(path.read_text(encoding="utf-8"))
    return stamp.get("lock") == _lock_hash(peer) and stamp.get("python") == _python()


def _lock_hash(peer: Peer) -> str:
    return hashlib.sha256((peer.folder / "uv.lock").read_bytes()).hexdigest()[:16]


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
