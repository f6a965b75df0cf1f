"""Whether a run has finished, from its record or its newest checkpoint."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flambeau.atomic_write import is_other_process_alive
from flambeau.wording import type_and_first_line


def status_of_record(record: Mapping[str, Any]) -> str:
    """Return the status of the last fit of a record.

    A fit that has not ended is "running" if its process is alive on this machine, "interrupted" if
    it is not, and "unknown" on another machine or on Windows.
    """
    try:
        last = record["fits"][-1]
        status, process, host = last["status"], last["process"], record["machine"]["host"]
    except (KeyError, IndexError, TypeError):  # edited by hand, or by another program
        return "unknown"
    if status in ("finished", "interrupted", "failed"):
        return str(status)
    if status != "running" or host != socket.gethostname() or not isinstance(process, int):
        return "unknown"
    alive = is_other_process_alive(process)
    return "unknown" if alive is None else "running" if alive else "interrupted"


def newest_checkpoint(folder: Path, problems: list[str]) -> dict[str, Any]:
    """Return plan, rows and progress in the newest readable checkpoint; empty without one.

    Nothing is deleted and no tensor is read.

    Args:
        folder: The folder of the run.
        problems: What cannot be read is added to it.
    """
    for path in sorted((folder / "checkpoints").glob("step-*/state.json"), reverse=True):
        try:
            tree: Any = json.loads(path.read_text(encoding="utf-8"))["tree"]
            position, phases = tree["position"], tree["phases"]
            last = phases[-1]["epochs"] if phases else None
            done = (
                None
                if last is None
                else position["phase"] >= len(phases) - 1 and position["phase_epoch"] >= last
            )
            rows = [dict(row) for row in tree["history"]["rows"]]
            return {"plan": tree["plan"], "rows": rows, "done": done}
        except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            problems.append(f"{path} cannot be read ({type_and_first_line(error)})")
    return {}


def status_of_checkpoint(checkpoint: Mapping[str, Any]) -> str:
    """Return "finished" or "interrupted" by the progress in a checkpoint, else "unknown"."""
    done = checkpoint.get("done")
    return "unknown" if done is None else "finished" if done else "interrupted"
