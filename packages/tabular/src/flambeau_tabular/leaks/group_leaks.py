"""Rows of one group (a person, a machine) in several parts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from flambeau.data.part_columns import is_group_name
from flambeau.doctor import Finding, TrainingSetup
from flambeau_tabular.columns.cells import dictionary_codes
from flambeau_tabular.leaks.fixes import declare
from flambeau_tabular.leaks.one_column_tree import score_alone
from flambeau_tabular.leaks.sample import MOST_TRAIN, TableSample, sample_of

_FEWEST_ROWS = 200
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
