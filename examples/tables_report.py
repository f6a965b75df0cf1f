"""Write the page of ``tables_benchmark.py`` and ``tables_intervals.py`` from their logs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frozen_recipe import read_log

METRICS = {
    "adult": ("accuracy", "auroc", "log_loss"),
    "california": ("rmse", "mae"),
    "bike": ("rmse", "mae"),
}
TITLES = {
    "adult": "Adult: income above 50,000 dollars (its own test file, 16,281 rows; 3 seeds)",
    "california": "California housing: RMSE in 100,000 dollars (5 random splits 80/10/10)",
    "bike": "Bike sharing: RMSE in bicycles per hour (the last 20% of the time; 3 seeds)",
}
PAGE, LOOKS, COVERAGE = "README.md", "looks.jsonl", "intervals.jsonl"


def write_report(folder: Path) -> None:
    """Write the page into the folder of the logs."""
    looks, coverage = (read_log(folder / name) for name in (LOOKS, COVERAGE))
    text = [INTRODUCTION]
    for case, names in METRICS.items():
        rows = [row for row in _runs(looks) if row[0].split(":")[0].split("_")[0] == case]
        text += [f"## {TITLES[case]}\n", _scores(rows, names), _against_boosting(rows)]
    text += ["## Every look at the test rows\n", _looks(looks)]
    if coverage:
        text += ["## Intervals at 90%\n", INTERVALS, _coverage(coverage), _months(coverage)]
    (folder / PAGE).write_text("\n".join(text).rstrip() + "\n")


def _runs(looks: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the looks at each recipe, those of its last version only."""
    last = {entry["recipe"]: entry["version"] for entry in looks}
    return [
        (name, [each for each in looks if (each["recipe"], each["version"]) == (name, version)])
        for name, version in last.items()
    ]


def _scores(rows: Sequence[tuple[str, list[dict[str, Any]]]], names: Sequence[str]) -> str:
    table = [["recipe", "runs", *names, "CPU seconds"]]
    for name, entries in rows:
        cells = [_mean([entry[each] for entry in entries]) for each in names]
        seconds = statistics.mean(entry["cpu_s"] for entry in entries)
        table.append([_shown(name), str(len(entries)), *cells, f"{seconds:,.1f}"])
    return _table(table)


def _shown(name: str, *, with_set: bool = False) -> str:
    case, _, setting = name.partition(":hgb:")
    if not setting:
        return f"`{case}`"
    shown = f"HistGradientBoosting, {setting}"
    return f"{case}: {shown}" if with_set else shown


def _against_boosting(rows: Sequence[tuple[str, list[dict[str, Any]]]]) -> str:
    """Return the mean RMSE of each recipe relative to the best line of gradient boosting.

    Both means are over the runs that the recipe has.
    """
    errors = {
        name: {entry["run"]: entry["rmse"] for entry in entries}
        for name, entries in rows
        if "rmse" in entries[0]
    }
    means = {name: statistics.mean(found.values()) for name, found in errors.items()}
    boosting = min((name for name in means if ":hgb:" in name), key=means.__getitem__, default=None)
    lines = []
    for name, found in errors.items():
        runs = found.keys() & errors.get(boosting or "", {}).keys()
        if boosting is None or ":hgb:" in name or not runs:
            continue
        ratio = sum(found[run] for run in runs) / sum(errors[boosting][run] for run in runs)
        n = f"{len(runs)} run{'s' * (len(runs) > 1)}"
        shown = f"{ratio:.3f} times that of {_shown(boosting)}"
        lines.append(f"- The mean RMSE of {_shown(name)} is {shown}, in the same {n}.\n")
    return "".join(lines)


def _mean(values: Sequence[float]) -> str:
    digits = 2 if abs(values[0]) > 10 else 4
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _looks(looks: Sequence[dict[str, Any]]) -> str:
    table = [["when (UTC)", "recipe", "run", "commit of the recipe", "score", "note"]]
    for entry in looks:
        score = entry["accuracy"] if "accuracy" in entry else entry["rmse"]
        row = [
            entry["when"],
            _shown(entry["recipe"], with_set=True),
            entry["run"],
            entry["commit"],
            score,
        ]
        table.append([*map(str, row), entry.get("note", "")])
    return _table(table)


def _coverage(entries: Sequence[dict[str, Any]]) -> str:
    table = [["set", "splits", "mean coverage", "lowest", "highest", "mean size", "log-loss"]]
    for case in ("adult", "california"):
        found = [entry for entry in entries if entry["set"] == case]
        if not found:
            continue
        covered = [entry["coverage"] for entry in found]
        losses = [each for each in found if "log_loss" in each]
        changed = "–"
        if losses:
            before, after = (
                statistics.mean(each[key] for each in losses)
                for key in ("log_loss_before", "log_loss")
            )
            changed = f"{before:.4f} → {after:.4f}"
        size = statistics.mean(entry["size"] for entry in found)
        ends = [f"{value:.1%}" for value in (statistics.mean(covered), min(covered), max(covered))]
        table.append([case, str(len(found)), *ends, f"{size:.3f}", changed])
    return _table(table)


def _months(entries: Sequence[dict[str, Any]]) -> str:
    found = [entry for entry in entries if entry["set"] == "bike"]
    if not found:
        return ""
    table = [["month", "hours", "coverage", "mean width"]]
    for month in found[-1]["months"]:
        covered, width = f"{month['coverage']:.1%}", f"{month['width']:.0f}"
        table.append([month["month"], f"{month['rows']:,}", covered, width])
    whole = f"{found[-1]['coverage']:.1%} of the {found[-1]['rows']:,} test hours are covered."
    return f"{BIKE}\n{_table(table)}\n{whole}\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


INTRODUCTION = """\
# Tables: recipes frozen before the test, beside gradient boosting

Written by `python examples/tables_benchmark.py --report`. Recipes are the files in
[`examples/table_recipes`](../../../examples/table_recipes); choices were made on validation rows,
which are drawn from the train rows. The script refuses a test score unless recipe, script and
reader are as they were committed, and appends every look to [`looks.jsonl`](looks.jsonl). Scores
are means ± standard deviations over the runs. HistGradientBoosting (scikit-learn) has the same
columns and split and trains on the validation rows, too, which the recipes use to select the
epoch. CPU seconds are those of the process on a machine with two shared cores, so they are upper
bounds; the number of epochs is fixed by the recipe, not by the time.
"""

INTERVALS = """\
Split-conformal intervals (sets of classes for Adult), fitted on a calibration part that is used
for nothing else, after short fits on random splits (`python examples/tables_intervals.py`). The
size is the mean number of classes in a set, and the mean width of an interval in the unit of the
target. The log-loss is that on the test file of Adult, before and after the temperature.
"""

BIKE = """\
Bike sharing in the order of time: train, validation, calibration, then the last fifth as test.
The promise of 90% holds for rows that are exchangeable with the calibration rows. Hours that
follow in time are not: the demand grows and the season changes, so that the coverage of a month
is only as good as the calibration time resembles it.
"""
