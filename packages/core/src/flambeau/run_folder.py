"""Where a run writes, and where a run can be taken up again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from flambeau.artefact.checkpoint import latest_checkpoint
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


def resume_point(path: str | Path | None) -> tuple[Path, Path]:
    """The run's folder and its newest whole checkpoint.

    Args:
        path: The folder of a run, or one checkpoint in it.

    Raises:
        ResumeError: There is no checkpoint.
    """
    if path is None:
        raise ResumeError(
            "There is no run to resume: the learner has no folder. Name the run's folder, "
            "learner.resume('runs/…'), or give the learner one, Learner(data, folder=…)."
        )
    place = Path(path)
    if (place / "state.json").exists():
        return place.parent.parent, place
    checkpoint = latest_checkpoint(place)
    if checkpoint is None:
        raise ResumeError(
            f"There is no checkpoint in {place}. A run writes its first one after some time, or "
            "when it is interrupted; start again with fit."
        )
    return place, checkpoint
