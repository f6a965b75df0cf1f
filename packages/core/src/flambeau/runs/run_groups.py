"""Groups of runs with one plan, which differ in their seed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from flambeau.plan.core_rules import CORE_RULES
from flambeau.runs.saved_run import SavedRun
from flambeau.wording import count_of

MACHINE_KEYS = frozenset(rule.key for rule in CORE_RULES if rule.of_machine) | {"probe"}
"""Keys of the plan that depend on the machine."""


@dataclass(frozen=True, eq=False)
class RunGroup:
    """Runs with the same plan, data, model and options.

    Attributes:
        label: "A", "B", … in the order of the comparison.
        runs: The runs, each with another seed.
        repeated: Runs left out, because another one has the same seed.
    """

    label: str
    runs: tuple[SavedRun, ...]
    repeated: tuple[SavedRun, ...] = ()

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def first(self) -> SavedRun:
        """The first run, which stands for the plan of all."""
        return self.runs[0]

    @property
    def title(self) -> str:
        """The label and the runs, in one line."""
        if len(self) == 1:
            return f"{self.label}: {self.first.folder}"
        seeds = ", ".join(str(run.seed) for run in self.runs)
        names = ", ".join(run.name for run in self.runs)
        return f"{self.label}: {count_of(len(self), 'run')} with seeds {seeds} ({names})"


def group_runs(runs: Sequence[SavedRun]) -> tuple[RunGroup, ...]:
    """Return the runs in groups of one plan, in the order of the first run of each.

    Values that depend on the machine, and a learning rate that was measured anew for each seed, may
    differ within a group. A run without a record is a group alone.

    Args:
        runs: The runs.
    """
    found: dict[str, list[SavedRun]] = {}
    for run in runs:
        found.setdefault(_identity(run), []).append(run)
    groups: list[RunGroup] = []
    for number, members in enumerate(found.values()):
        kept: dict[Any, SavedRun] = {}
        for run in members:
            kept.setdefault(run.seed, run)
        chosen = tuple(kept.values())
        repeated = tuple(run for run in members if run not in chosen)
        groups.append(RunGroup(_label(number), chosen, repeated))
    return tuple(groups)


def single_runs(runs: Sequence[SavedRun]) -> tuple[RunGroup, ...]:
    """Return each run as one group."""
    return tuple(RunGroup(_label(number), (run,)) for number, run in enumerate(runs))


def _label(number: int) -> str:
    letters = ascii_uppercase
    return letters[number] if number < len(letters) else f"run {number + 1}"


def _identity(run: SavedRun) -> str:
    if run.plan is None or not run.record:
        return str(run.folder.resolve())
    values = {
        key: run.plan[key].value
        for key in run.plan
        if key not in MACHINE_KEYS and "lr_find" not in run.plan[key].evidence
    }
    model, task = run.model.get("digest"), run.record.get("task")
    parts = [values, run.earlier_epochs, run.data, model, run.options, task]
    return json.dumps(parts, sort_keys=True, default=str)
