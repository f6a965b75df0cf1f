"""Where a run writes, and where a run can be taken up again."""

from __future__ import annotations

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
from flambeau.errors import ResumeError


def new_run_folder(name: str, root: str | Path = "runs") -> Path:
    """A path under ``root`` that does not exist yet; nothing is created."""
    stamp = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
    path = Path(root) / f"{stamp}-{name}"
    count = 2
    while path.exists():
        path = Path(root) / f"{stamp}-{name}-{count}"
        count += 1
    return path


def run_of(path: str | Path) -> Path:
    """The run's folder, where ``path`` is that or one checkpoint in it; reads no checkpoint.

    Raises:
        ResumeError: There is no checkpoint.
    """
    place = Path(path)
    if _is_checkpoint(place):
        return place.parent.parent
    if latest_checkpoint(place) is None:
        raise _none_in(place)
    return place


def resume_point(path: str | Path | None) -> tuple[Path, Path, Any]:
    """The run's folder, the checkpoint to go on from, and its tree.

    Args:
        path: The folder of a run, whose newest whole checkpoint it is, or one checkpoint in it.

    Raises:
        ResumeError: There is no checkpoint.
        ArtefactError: The checkpoint that was named, or every one of the run, is damaged.
    """
    if path is None:
        raise ResumeError(
            "There is no run to resume: the learner has no folder. Name the run's folder, "
            "learner.resume('runs/…'), or give the learner one, Learner(data, folder=…)."
        )
    place = Path(path)
    if _is_checkpoint(place):
        return run_of(place), place, load_checkpoint(place)
    found = load_latest_checkpoint(place)
    if found is None:
        raise _none_in(place)
    return place, *found


def _is_checkpoint(place: Path) -> bool:
    return (place / "state.json").exists()


def _none_in(place: Path) -> ResumeError:
    return ResumeError(
        f"There is no checkpoint in {place}. A run writes its first one after some time, or when "
        "it is interrupted; start again with fit."
    )


def agree_on_folder(folder: Path | None, name: str) -> Path:
    """Where the run writes; a new folder's name is that of process 0."""
    found = folder or new_run_folder(name)
    together = processes.initialize()
    return found if together is None else together.broadcast(found)


def agree_on_checkpoint(path: str | Path | None) -> tuple[Path, Path, Mapping[str, Any]]:
    """The run's folder, its newest whole checkpoint as process 0 sees it, and what is in it.

    Every process reads the file, so they need a common folder.
    """
    together = processes.initialize()
    if together is not None:
        path = together.run_on_main(lambda: resume_point(path)[1])
    return resume_point(path)
