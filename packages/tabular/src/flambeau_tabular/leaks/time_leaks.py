"""Leaks in time: dated rows that are split at random, and inputs that move with time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from flambeau.data.row_codes import number_times
from flambeau.doctor import Finding, TrainingSetup
from flambeau_tabular.column_kind import ColumnKind
from flambeau_tabular.columns.moments import as_moments
from flambeau_tabular.leaks.fixes import declare, drop_column
from flambeau_tabular.leaks.one_column_tree import FEWEST_IN_LEAF, Floats, auroc_alone, score_alone
from flambeau_tabular.leaks.sample import Column, TableSample, sample_of

_FEWEST_ROWS = 200
_FEWEST_TIMES = 20
_LEAVES_OF_TIME = 40
_MOVES_AUROC, _MOVES_R2 = 0.65, 0.1  # of the target by the time alone
_INSIDE = 0.5  # share of the valid rows that are earlier than the last train row
_SEPARABLE, _NEW = 0.99, 0.9  # AUROC between early and late train rows, share of new values
_TIME = re.compile(
    r"(^|[^a-z])(time|date|datetime|time ?stamp|epoch|ts|day)($|[^a-z])", re.IGNORECASE
)
# Days as 20240131, and seconds, milliseconds, microseconds, nanoseconds since 1970.
_TIME_RANGES = (
    (19_500_101, 21_001_231),
    *((3e8 * unit, 5e9 * unit) for unit in (1, 1e3, 1e6, 1e9)),
)
_BIRTH = re.compile(
    r"birth|born|(^|[^a-z])dob($|[^a-z])|geburt|naissance|nacimiento", re.IGNORECASE
)

_INDEX = "index of the frame"


def time_across_parts(setup: TrainingSetup) -> list[Finding]:
    """Find dated rows whose valid part is not later than train, although the target changes."""
    sample: TableSample | None = setup.cached(sample_of)
    if sample is None or not len(sample.rows["valid"]):
        return []
    times = sample.data.structure.times
    if times is not None:
        name = sample.data.options.time or "time"
        rows = [sample.rows[part] for part in ("train", "valid")]
        order, _ = number_times(times[np.concatenate(rows)])
        train, valid = np.split(order, [len(rows[0])])
        inside = float(np.mean(valid < train.max()))
        if inside == 0:
            return []
        return [
            _finding(
                sample,
                name,
                inside,
                f"The rows are split by split=…, so that {inside:.0%} of the valid rows are "
                f"earlier than the last train row, although time={name!r} is declared.",
                "Omit split=… (--split): the parts then follow in time.",
            )
        ]
    return [finding for finding, _ in setup.cached(_undeclared_times)]


def moves_with_time(setup: TrainingSetup) -> list[Finding]:
    """Find inputs that tell early from late train rows: counters, versions."""
    sample: TableSample | None = setup.cached(sample_of)
    if sample is None or len(sample.rows["train"]) < _FEWEST_ROWS:
        return []
    declared = sample.data.options.time
    if declared is not None and sample.data.structure.times is not None:
        order, _ = number_times(sample.data.structure.times[sample.rows["train"]])
        time_values = order.astype(np.float64)
    elif undeclared := setup.cached(_undeclared_times):
        declared = undeclared[0][1].name
        time_values = sample.of("train", undeclared[0][1].values)
    else:
        return []
    late = time_values > np.nanmedian(time_values)
    if not 0.1 < late.mean() < 0.9:
        return []
    halves = np.stack([~late, late], axis=1).astype(np.float64)
    found: list[Finding] = []
    for column in sample.inputs():
        if column.kind.kind == "date" or column.name == declared:
            continue
        train = sample.of("train", column.values)
        score = auroc_alone(train, halves, is_ordered=column.is_ordered)
        new = _share_of_new(train[~late], train[late], is_ordered=column.is_ordered)
        if not score > _SEPARABLE or new < _NEW:
            continue
        found.append(
            Finding(
                "moves-with-time",
                f"The input {column.name!r} moves with the time {declared!r}: {new:.0%} of the "
                f"later half of {sample.describe()} have values that the earlier half does not "
                "have. Later rows will have values from which the model has learned nothing.",
                {"column": column.name, "new in later half": new, "AUROC early or late": score},
                f"Drop counters, versions and parts of the calendar that do not come back: "
                f"{drop_column(column.name)}.",
            )
        )
    return found


def _undeclared_times(setup: TrainingSetup) -> list[tuple[Finding, Column]]:
    """Return the columns of dates by which the rows should have been split, with the findings."""
    sample: TableSample | None = setup.cached(sample_of)
    if sample is None or len(sample.rows["train"]) < _FEWEST_ROWS:
        return []
    found: list[tuple[Finding, Column]] = []
    for column in _dates(sample):
        name = column.name
        train, valid = (sample.of(part, column.values) for part in ("train", "valid"))
        train_known, valid_known = train[~np.isnan(train)], valid[~np.isnan(valid)]
        if len(np.unique(train_known)) < _FEWEST_TIMES or not len(valid_known):
            continue
        inside = float(np.mean(valid_known < train_known.max()))
        if inside < _INSIDE:
            continue
        for target, wanted in sample.targets().items():
            leaf = max(FEWEST_IN_LEAF, len(train) // _LEAVES_OF_TIME)  # a trend, not single days
            measure, score = score_alone(train, wanted, is_ordered=True, leaf=leaf)
            if not score > (_MOVES_R2 if measure == "R²" else _MOVES_AUROC):
                continue
            what = (
                f"The rows have dates in {name!r}, and the target {target!r} changes with them "
                f"({measure} {score:.2f} by the date alone), but {inside:.0%} of the valid rows "
                "are earlier than the last train row. They are then predicted from train rows "
                "before and after them, and the scores are too good for later rows."
            )
            declared, index = declare("time", name), ""
            if name == _INDEX:
                declared = declare("time", "time")
                index = ", after frame.reset_index(names='time')"
            fix = f"If later rows are to be predicted, split by time: {declared}{index}."
            found.append((_finding(sample, name, inside, what, fix, **{measure: score}), column))
            break
    return found


def _dates(sample: TableSample) -> Iterator[Column]:
    """Yield the columns of dates, and of numbers that count the time since 1970 or are 20240131.

    The index of a pandas frame is a column named "index of the frame".
    """
    index: Any = sample.frame.index
    if getattr(getattr(index, "dtype", None), "kind", "") == "M":
        moments = as_moments(pa.chunked_array([pa.Array.from_pandas(index)]), _INDEX)
        values = np.where(moments.missing, np.nan, moments.microseconds.astype(np.float64))
        yield Column(_INDEX, ColumnKind("date"), values)
    for name, kind in sorted(sample.kinds.items()):
        if kind.kind not in ("date", "number") or _BIRTH.search(name):
            continue
        if kind.kind == "number" and not _TIME.search(name):
            continue
        column = sample.column(name)
        if column is not None and (kind.kind == "date" or _counts_time(column.values)):
            yield column


def _counts_time(values: Floats) -> bool:
    known = values[~np.isnan(values)]
    if not len(known) or (known != np.floor(known)).any():
        return False
    low, high = float(known.min()), float(known.max())
    return any(least <= low and high <= most for least, most in _TIME_RANGES)


def _finding(
    sample: TableSample, name: str, inside: float, what: str, fix: str, **more: float
) -> Finding:
    rows = len(sample.rows["train"])
    evidence = {"column": name, "valid rows before the last train row": inside, "rows": rows}
    return Finding("time-across-parts", what, {**evidence, **more}, fix)


def _share_of_new(early: Floats, late: Floats, *, is_ordered: bool) -> float:
    """Return the share of late rows outside of the range, or of the categories, of early rows."""
    early, late = early[~np.isnan(early)], late[~np.isnan(late)]
    if not len(early) or not len(late):
        return 0.0
    if is_ordered:
        return float(np.mean((late < early.min()) | (late > early.max())))
    return float(np.mean(~np.isin(late, early)))
