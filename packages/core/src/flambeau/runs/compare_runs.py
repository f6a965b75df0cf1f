"""``compare_runs``: the choices that differ, and whether the scores differ by more than noise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from flambeau.errors import ArgumentError, InputError
from flambeau.runs.comparison import Comparison
from flambeau.runs.find_runs import expanded
from flambeau.runs.noise import compare_groups
from flambeau.runs.plan_differences import plan_differences
from flambeau.runs.run_groups import group_runs, single_runs
from flambeau.runs.saved_run import FOLDS_NAME, read_run

PARTS = ("valid", "test")


def compare_runs(*folders: str | Path, part: str = "valid") -> Comparison:
    """Return the comparison of runs: differences of plans, curves, and a test of the scores.

    Runs with one plan and several seeds form a group. The first group is compared with each other
    one: over the seeds if both have at least four runs (five with three to seven groups, whose
    comparisons share the level), else over the samples if the predictions of each sample are in
    the folders (``flambeau fit`` and ``learner.interpret(part).save(folder)`` write them). Runs on
    other data are not compared.

    Args:
        folders: Folders of runs.
        part: "valid", or "test" for one last look: choosing a plan by its test score makes this
            score too good.

    Raises:
        ArgumentError: The part is unknown, or a folder is not a path.
        InputError: There are fewer than two runs, or a folder is not a run.

    Example:
        >>> print(compare_runs("runs/small", "runs/large"))  # doctest: +SKIP
    """
    if part not in PARTS:
        raise ArgumentError(f"part is {part!r}, but must be one of {', '.join(PARTS)}.")
    runs = [read_run(each) for each in _distinct(folders)]
    of_folds = [run for run in runs if (run.folder / FOLDS_NAME).is_file()]
    if of_folds:
        models = ", ".join(str(each.folder) for each in expanded(of_folds[0])[:2])
        raise InputError(
            f"{of_folds[0].folder} has the models of several folds, whose validation samples "
            f"differ. Compare models of one fold ({models}, …)."
        )
    groups = group_runs(runs)
    if len(groups) == 1:  # one plan: compare the runs with each other
        groups = single_runs(runs)
    pairs = compare_groups(groups, part)
    return Comparison(groups, part, plan_differences(groups), pairs)


def _distinct(folders: Sequence[str | Path]) -> list[Path]:
    """Return the folders as given; those of one run, such as "a" and "./a", once."""
    for each in folders:
        if not isinstance(each, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(
                f"A folder must be a path, but is {each!r:.60}. Give each folder as an argument: "
                "compare_runs(*folders)."
            )
    found: dict[Path, Path] = {}
    for each in folders:
        found.setdefault(Path(each).resolve(), Path(each))
    if len(found) < 2:
        what = "but none was given"
        if found:
            (only,) = found.values()
            what = f"but {only} alone was given"
            what = f"but all paths are the same run, {only}" if len(folders) > 1 else what
        raise InputError(
            f"A comparison needs at least two runs, {what}. Give their folders: flambeau runs "
            "compare runs/A runs/B."
        )
    return list(found.values())
