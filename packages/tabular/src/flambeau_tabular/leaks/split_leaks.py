"""Leaks between the parts: rows of one group in several parts, train rows later than valid ones."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from flambeau.data.part_columns import is_group_name
from flambeau.data.row_codes import number_times
from flambeau.doctor import Finding, TrainingSetup
from flambeau_tabular.columns.cells import dictionary_codes
from flambeau_tabular.leaks.fixes import declare, drop_column
from flambeau_tabular.leaks.one_column_tree import FEWEST_IN_LEAF, Floats, auroc_alone, score_alone
from flambeau_tabular.leaks.sample import MOST_TRAIN, Column, TableSample, sample_of

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

_FEWEST_GROUPS, _ROWS_OF_GROUP = 10, 2.0
_SHARED = 0.05  # share of the valid rows with a group that train has
_ALIKE_AUROC, _ALIKE_R2 = 0.6, 0.05  # of the target by the group alone
_MANY_GROUPS = 50
_MOST_READ, _MOST_COLUMNS = 2_000_000, 3  # larger tables: rows, and columns that are read whole
_GROUP = re.compile(
    r"(user|customer|client|member|student|pupil|employee|driver|player|animal|machine|device|"
    r"sensor|engine|owner|author|worker|donor|case|family|account)"
    r"s?([\s_-]?(id|no|nr|number|key|code))?",
    re.IGNORECASE,
)
_KEY = re.compile(r"(^|[^A-Za-z])(?i:id|uuid|guid|key)$|[a-z]I[Dd]$")


# ---------------------------------------------------------------- time


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
            fix = f"If later rows are to be predicted, split by time: {declare('time', name)}."
            found.append((_finding(sample, name, inside, what, fix, **{measure: score}), column))
            break
    return found


def _dates(sample: TableSample) -> Iterator[Column]:
    """Yield the columns of dates, and of numbers that count the time since 1970 or are 20240131."""
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


# ---------------------------------------------------------------- groups


def groups_across_parts(setup: TrainingSetup) -> list[Finding]:
    """Find a column named like a group (patient, user) whose values are in train and in valid."""
    return [finding for finding, is_named in setup.cached(_groups) if is_named]


def possible_groups(setup: TrainingSetup) -> list[Finding]:
    """Find other keys with repeated values, whose rows have similar targets."""
    return [finding for finding, is_named in setup.cached(_groups) if not is_named]


def _groups(setup: TrainingSetup) -> list[tuple[Finding, bool]]:
    sample: TableSample | None = setup.cached(sample_of)
    if sample is None or not len(sample.rows["valid"]):
        return []
    structure = sample.data.structure
    if structure.groups is not None or structure.times is not None:
        return []  # in a split by time the same groups come back later
    found: list[tuple[Finding, bool]] = []
    for name, is_named in _candidates(sample):
        codes = _codes_of(sample, name)
        split = sample.data.split
        train, valid = codes[split.train], codes[split.valid]
        train, valid = train[train >= 0], valid[valid >= 0]
        counts = np.bincount(train, minlength=int(codes.max(initial=-1)) + 1)
        n_groups = int((counts > 0).sum())
        if n_groups < _FEWEST_GROUPS or len(train) < _ROWS_OF_GROUP * n_groups or not len(valid):
            continue
        shared = float((counts[valid] > 0).mean())
        if shared < _SHARED:
            continue
        score = _alike(sample, codes, n_groups)
        if not is_named and score is None:
            continue
        finding = _group_finding(sample, name, n_groups, shared, score, is_named=is_named)
        found.append((finding, is_named))
    return found


def _group_finding(
    sample: TableSample,
    name: str,
    n_groups: int,
    shared: float,
    score: tuple[str, float] | None,
    *,
    is_named: bool,
) -> Finding:
    alike = ""
    evidence = {"column": name, "groups in train": n_groups, "share of valid rows": shared}
    if score is not None:
        measure, value = score
        evidence[measure] = value
        alike = f" Rows of one {name} have similar targets ({measure} {value:.2f} by it alone)."
    return Finding(
        "groups-across-parts" if is_named else "possible-groups",
        f"{shared:.0%} of the valid rows have a {name} that also occurs in train ({n_groups:,} "
        f"values in {len(sample.data.split.train):,} train rows).{alike} The scores measure how "
        f"well the model works for these, not for a new {name}.",
        evidence,
        f"If the model is for new values of {name!r}, put each into one part: "
        f"{declare('group', name)}.",
    )


def _candidates(sample: TableSample) -> Iterator[tuple[str, bool]]:
    roles = sample.data.options.roles.values()
    n_read = 0
    for name in sorted(sample.frame.column_names):
        kind = sample.kinds.get(name)
        if name in roles or kind is None or kind.kind in ("date", "boolean", "constant", "empty"):
            continue
        is_named = is_group_name(name) or _GROUP.fullmatch(name.strip()) is not None
        if kind.kind == "number":
            # Numbers of persons are amounts, and so are parts of a person.
            is_named = is_named and "distinct" in kind.evidence and not name.strip().endswith("s")
        if not is_named and not _KEY.search(name):
            continue
        n_read += 1
        if n_read > _MOST_COLUMNS and len(sample.data.frame) > _MOST_READ:
            return
        yield name, is_named


def _codes_of(sample: TableSample, name: str) -> NDArray[np.int64]:
    """Return the number of the value of each row of the whole table, -1 if it is missing.

    All rows are read, because few rows of one group are in a sample.
    """
    cells = sample.data.frame.column(name)
    codes, values = dictionary_codes(cells)
    missing = np.append(values.is_null(nan_is_null=True).to_numpy(zero_copy_only=False), True)
    return np.where(missing[codes], -1, codes).astype(np.int64)


def _alike(
    sample: TableSample, codes: NDArray[np.int64], n_groups: int
) -> tuple[str, float] | None:
    """Return how well the group alone predicts the target, if it does."""
    rows, train = sample.rows["train"], sample.data.split.train
    step = -(-len(train) // MOST_TRAIN)
    if n_groups >= _MANY_GROUPS * step:  # whole groups, because a sample has few rows of each
        rows = train[codes[train] % step == 0]
    values = np.where(codes[rows] < 0, np.nan, codes[rows].astype(np.float64))
    if len(rows) < _FEWEST_ROWS:
        return None
    for wanted in sample.targets(rows).values():
        measure, score = score_alone(values, wanted, is_ordered=False)
        if score > (_ALIKE_R2 if measure == "R²" else _ALIKE_AUROC):
            return measure, score
    return None
