"""Folders of runs, and the checkpoints in them from which a run can be resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from flambeau.artefact.checkpoint_files import (
    latest_checkpoint,
    load_checkpoint,
    load_latest_checkpoint,
)
from flambeau.distributed import processes
from flambeau.errors import ArgumentError, ResumeError


def new_run_folder(name: str, root: str | Path = "runs") -> Path:
    """Return a path under ``root`` that does not exist yet; create nothing."""
    stamp = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    while True:
        # Runs that start in the same second must not share a folder, and none of them exists yet.
        path = Path(root) / f"{stamp}-{name}-{os.urandom(4).hex()}"
        if not path.exists():
            return path


def check_unused(folder: Path) -> None:
    """Refuse a folder that contains a run: its history and checkpoints would be overwritten.

    Raises:
        ArgumentError: There is a checkpoint or a history with rows in the folder.
    """
    found = latest_checkpoint(folder)
    histories = [folder / f"history.{ending}" for ending in ("csv", "jsonl")]
    written = [file for file in histories if file.is_file() and file.stat().st_size]
    if found is not None or written:
        raise run_exists_error(folder, (found or written[0]).relative_to(folder))


def run_exists_error(folder: Path, found: object) -> ArgumentError:
    """Return the error for a folder that contains a run, recognised by the file ``found``."""
    return ArgumentError(
        f"{folder} already contains a run ({found}), which would be overwritten. Use another "
        "folder, Learner(data, folder=…) or --out; delete this one; or continue its run with "
        f"learner.resume({str(folder)!r}) or --resume {folder}."
    )


def run_of(path: str | Path) -> Path:
    """Return the folder of the run that is or contains ``path``; read no checkpoint.

    Raises:
        ResumeError: There is no checkpoint.
    """
    folder = Path(path)
    if is_checkpoint(folder):
        return folder.parent.parent
    if latest_checkpoint(folder) is None:
        raise _no_checkpoint_error(folder)
    return folder


def resume_point(path: str | Path | None) -> tuple[Path, Path, Any]:
    """Return the run's folder, the checkpoint to resume from, and its content.

    Args:
        path: One checkpoint, or the folder of a run, whose newest complete checkpoint is used.

    Raises:
        ResumeError: There is no checkpoint.
        ArtefactError: The given checkpoint, or every one of the run, is damaged.
    """
    if path is None:
        raise ResumeError(
            "There is no run to resume: the learner has no folder. Pass the run's folder, "
            "learner.resume('runs/…'), or give the learner one, Learner(data, folder=…)."
        )
    folder = Path(path)
    if is_checkpoint(folder):
        return run_of(folder), folder, load_checkpoint(folder)
    found = load_latest_checkpoint(folder)
    if found is None:
        raise _no_checkpoint_error(folder)
    return folder, *found


def is_checkpoint(path: Path) -> bool:
    """Return whether ``path`` is the folder of a checkpoint."""
    return (path / "state.json").exists()


def _no_checkpoint_error(folder: Path) -> ResumeError:
    return ResumeError(
        f"There is no checkpoint in {folder}. A run writes its first one after some time, or when "
        "it is interrupted; start a new run with fit()."
    )


def agree_on_folder(folder: Path | None, name: str) -> Path:
    """Return the folder of the run, equal on all processes; rank 0 names a new folder."""
    found = folder or new_run_folder(name)
    group = processes.initialize()
    return found if group is None else group.broadcast(found)


def agree_on_checkpoint(path: str | Path | None) -> tuple[Path, Path, Mapping[str, Any]]:
    """Return the run's folder, the checkpoint that rank 0 selects, and its content.

    Every process reads the file, so they need a shared file system.
    """
    group = processes.initialize()
    if group is not None:
        path = group.run_on_main(lambda: resume_point(path)[1])
    return resume_point(path)
