"""What the processes of a run have in common: data, plan, folder, checkpoint, run.

Alone, each of these is what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from flambeau.data.data import Data
from flambeau.data.split import PARTS
from flambeau.distributed import processes
from flambeau.distributed.processes import Processes
from flambeau.errors import InputError
from flambeau.learner.run_folder import new_run_folder, resume_point
from flambeau.plan import Plan
from flambeau.training.components import Parts
from flambeau.training.history import History
from flambeau.training.ranks.ranked_run import DistributedRun
from flambeau.training.run import Run, RunSettings
from flambeau.training.state import Position

# They may differ between machines that hold the same data.
_OF_THE_MACHINE = ("evidence", "in_memory", "memory_bytes")


def agree_on_plan(plan: Plan, data: Data) -> Plan:
    """The plan of process 0 with this process's own device, for data that all of them have.

    Raises:
        InputError: The processes have different data.
    """
    together = processes.join()
    if together is None:
        return plan
    _check_data(data, together)
    main = Plan.from_json(together.from_main(plan.to_json()))
    for key, choice in ((key, main[key]) for key in main):
        if key != "device" and (key not in plan or plan[key] != choice):
            plan = plan.with_choice(choice)
    return plan


def own_device(saved: Plan, plan: Plan) -> Plan:
    """A plan that another process may have saved, with this one's device if it is of the kind."""
    if processes.current() is None or "device" not in saved:
        return saved
    mine, theirs = (torch.device(each.values["device"]) for each in (plan, saved))
    return saved.with_choice(plan["device"]) if mine.type == theirs.type else saved


def agree_on_folder(folder: Path | None, name: str) -> Path:
    """Where the run writes; a new folder's name is that of process 0."""
    found = folder or new_run_folder(name)
    together = processes.join()
    return found if together is None else together.from_main(found)


def agree_on_checkpoint(path: str | Path | None) -> tuple[Path, Path, Mapping[str, Any]]:
    """The run's folder, its newest whole checkpoint as process 0 sees it, and what is in it.

    Every process reads the file, so they need a common folder.
    """
    together = processes.join()
    if together is not None:
        path = together.on_main(lambda: resume_point(path)[1])
    return resume_point(path)


def make_run(parts: Parts, settings: RunSettings, history: History, position: Position) -> Run:
    """A ``Run``, or this process's part of one that is shared."""
    together = processes.join()
    if together is None:
        return Run(parts, settings, history, position)
    if not together.is_main:
        callbacks = [each for each in settings.callbacks if each.every_process]
        settings = replace(settings, callbacks=callbacks)
    return DistributedRun(parts, settings, history, position, together)


def _check_data(data: Data, together: Processes) -> None:
    measured = data.facts()
    # A loader with a DistributedSampler shows each process other samples.
    known = ("n_train", "n_valid", "n_test") if "loader_batch_size" in measured else measured
    facts = {name: measured[name] for name in known if name not in _OF_THE_MACHINE}
    for part in PARTS:
        rows = data.split.part(part)
        digest = hashlib.blake2b(rows.tobytes(), digest_size=8).hexdigest()
        facts[f"rows of {part}"] = f"{len(rows)} rows (digest {digest})"
    for rank, theirs in enumerate(together.gather(facts)):
        for name, fact in facts.items():
            if theirs.get(name) != fact:
                raise InputError(
                    f"Processes {together.rank} and {rank} have different data: {name} is "
                    f"{fact!r:.80} here and {theirs.get(name)!r:.80} there. Each must build the "
                    "same data: seed what is drawn, and read the same files."
                )
