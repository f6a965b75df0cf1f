"""``find_runs``: the runs in a folder and below it, and what in it is not a run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flambeau.errors import FlambeauError, InputError
from flambeau.runs.list_table import list_json, list_text
from flambeau.runs.saved_run import FOLDS_NAME, PLAN_NAME, SavedRun, is_run, read_run
from flambeau.wording import type_and_first_line

MAX_DEPTH = 4
"""Levels of folders below the given one that are searched."""


@dataclass(frozen=True, eq=False)
class RunList:
    """The runs of a folder; ``print`` shows them as a table.

    Attributes:
        folder: The folder that was searched.
        runs: The runs, by the time of their start; runs with an unknown start come first.
        not_runs: Folders without any file of a run.
        unreadable: What could not be read, one line each.
    """

    folder: Path
    runs: tuple[SavedRun, ...]
    not_runs: tuple[Path, ...] = ()
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.runs)

    def __str__(self) -> str:
        return self.table()

    def table(self, width: int | None = None, last: int | None = None) -> str:
        """Return the runs as a text table, and lines for what is not a run or not readable.

        Args:
            width: Characters per line; None does not wrap.
            last: Number of runs that are shown, the last ones; None shows all.
        """
        return list_text(self, width, last)

    def to_json(self) -> dict[str, Any]:
        """Return the list as JSON values."""
        return list_json(self)


def find_runs(folder: str | Path = "runs") -> RunList:
    """Return the runs in a folder and below it, up to four levels deep.

    The models of ``fit_folds`` count as one run. Nothing is changed or deleted.

    Args:
        folder: A folder with runs, or the folder of one run.

    Raises:
        InputError: The folder does not exist or cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(
            f"{root} is not a folder (current folder: {Path.cwd()}). Runs are in `runs/` unless "
            "another folder was given: flambeau runs FOLDER."
        )
    search = _Search()
    if is_run(root):
        search.read(root)
    else:
        search.search(root, 0)
    runs = sorted(search.runs, key=lambda run: (run.started or "", str(run.folder)))
    return RunList(root, tuple(runs), tuple(search.not_runs), tuple(search.unreadable))


class _Search:
    """Collects the runs below a folder."""

    def __init__(self) -> None:
        self.runs: list[SavedRun] = []
        self.not_runs: list[Path] = []
        self.unreadable: list[str] = []
        self._seen: set[str] = set()  # a link may lead back to a parent

    def search(self, folder: Path, depth: int) -> bool:
        """Add the runs below a folder, and return whether there are any."""
        real = os.path.realpath(folder)
        if real in self._seen:
            return False
        self._seen.add(real)
        try:
            inside = sorted(each for each in folder.iterdir() if each.is_dir())
        except OSError as error:
            self.unreadable.append(f"{folder}: {error.strerror}")
            return True
        found = False
        for each in inside:
            if each.name.startswith("."):  # leftovers of a killed write, hidden folders
                continue
            found |= self._visit(each, depth)
        return found

    def _visit(self, folder: Path, depth: int) -> bool:
        try:
            if is_run(folder) or (folder / PLAN_NAME).is_file():
                self.read(folder)
                return True
        except OSError as error:
            self.unreadable.append(f"{folder}: {error.strerror}")
            return True
        if depth + 1 < MAX_DEPTH and self.search(folder, depth + 1):
            return True
        if depth == 0:
            self.not_runs.append(folder)
        return False

    def read(self, folder: Path) -> None:
        """Add one run; a folder that cannot be understood becomes a line."""
        try:
            self.runs.append(read_run(folder))
        except (FlambeauError, OSError) as error:
            self.unreadable.append(f"{folder}: {type_and_first_line(error)}")


def expanded(run: SavedRun) -> list[SavedRun]:
    """Return the models of ``fit_folds`` as runs; a single run alone."""
    if not (run.folder / FOLDS_NAME).is_file():
        return [run]
    return [read_run(each) for each in sorted(run.folder.glob("fold-*")) if each.is_dir()]
