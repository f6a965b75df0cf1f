"""Columns of little use: missing in a part, nearly empty, IDs; and classes with few rows."""

from __future__ import annotations

import shlex

import numpy as np

from flambeau.data.split import HELD_OUT
from flambeau.doctor import Finding, TrainingSetup
from flambeau.wording import name_some
from flambeau_tabular.data import TabularData
from flambeau_tabular.leaks.fixes import drop_column
from flambeau_tabular.leaks.sample import TableSample, sample_of

_FEWEST_IN_PART = 50
_DIFFERENT = 0.25  # difference between the shares of missing cells in train and another part
_NEARLY_EMPTY = 0.9
_UNSEEN = 0.9  # share of the valid rows with a category that train does not have
_DISTINCT = 0.1  # categories per train row of a column that names rows
_FEWEST_IDS, _DENSE = 100, 0.5  # whole numbers that number rows, some of which were removed
_FEWEST_OF_CLASS = 10


def missing_in_part(setup: TrainingSetup) -> list[Finding]:
    """Find columns that are empty in a held-out part, or in train, or far more often missing."""
    sample: TableSample | None = setup.cached(sample_of)
    if sample is None:
        return []
    drop = set(sample.data.options.drop)
    found: list[Finding] = []
    for name in sorted(set(sample.data.columns) - drop):
        missing = sample.missing(name)
        in_train = float(sample.of("train", missing).mean())
        for part in HELD_OUT:
            cells = sample.of(part, missing)
            share = float(cells.mean()) if len(cells) else 0.0
            if len(cells) < _FEWEST_IN_PART or abs(share - in_train) < _DIFFERENT:
                continue
            found.append(_missing_finding(name, part, in_train, share, len(cells)))
            break
    return found


def _missing_finding(name: str, part: str, in_train: float, share: float, n: int) -> Finding:
    consequence = (
        "The model then learns from cells that it does not get"
        if share > in_train
        else "The model then learns little from cells that it does get"
    )
    return Finding(
        "missing-in-part",
        f"The column {name!r} is missing in {share:.0%} of the {part} rows, but in "
        f"{in_train:.0%} of the train rows. {consequence}, and its scores say little about rows "
        "with other cells.",
        {"column": name, "missing in train": in_train, f"missing in {part}": share, "rows": n},
        f"Give the cells in each part, or drop the column: {drop_column(name)}.",
        severity="error" if share == 1 and in_train < 1 - _DIFFERENT else "warning",
    )


def nearly_empty(setup: TrainingSetup) -> list[Finding]:
    """Find inputs that are missing in nearly all train rows."""
    data = setup.data
    if not isinstance(data, TabularData):
        return []
    found: list[Finding] = []
    for name, kind in sorted(data.columns.items()):
        rows, missing = kind.evidence.get("rows", 0), kind.evidence.get("missing", 0)
        if kind.kind == "empty" or rows < _FEWEST_IN_PART or missing < _NEARLY_EMPTY * rows:
            continue
        found.append(
            Finding(
                "nearly-empty",
                f"The input {name!r} is missing in {missing / rows:.1%} of the {rows:,} train "
                f"rows: the model learns from {rows - missing:,} cells.",
                {"column": name, "missing": missing, "rows": rows},
                f"Drop the column unless the few cells matter: {drop_column(name)}.",
            )
        )
    return found


def id_like(setup: TrainingSetup) -> list[Finding]:
    """Find inputs that name or number single rows, which no later row has."""
    sample: TableSample | None = setup.cached(sample_of)
    if sample is None:
        return []
    found: list[Finding] = []
    for column in sample.inputs():
        name, kind = column.name, column.kind
        seen = kind.evidence
        if kind.kind == "number" and {"distinct", "low", "high"} <= set(seen):
            known, distinct = seen["rows"] - seen["missing"], seen["distinct"]
            span = seen["high"] - seen["low"] + 1
            if distinct < known or known < _FEWEST_IDS or known < _DENSE * span:
                continue
            what = (
                f"The input {name!r} has {distinct:,} distinct whole numbers from "
                f"{seen['low']:,} to {seen['high']:,}, each in one train row: it numbers the rows."
            )
            found.append(_id_finding(name, what, {"distinct": distinct, "rows": known}))
        elif kind.kind == "category":
            train, valid = (sample.of(part, column.values) for part in ("train", "valid"))
            cells = valid[~np.isnan(valid)]
            if len(cells) < _FEWEST_IN_PART or not sample.is_whole:
                continue
            if len(np.unique(train)) < _DISTINCT * len(train):
                continue
            unseen = float((~np.isin(cells, train)).mean())
            if unseen < _UNSEEN:
                continue
            what = (
                f"In {unseen:.0%} of the valid rows the input {name!r} has a category that train "
                "does not have, so that the model learns nothing from it that holds for them."
            )
            found.append(_id_finding(name, what, {"unseen in valid": unseen, "rows": len(cells)}))
    return found


def _id_finding(name: str, what: str, evidence: dict[str, float]) -> Finding:
    fix = (
        f"Drop it with kinds={{{name!r}: 'id'}}, on the command line --kinds "
        f"{shlex.quote(f'{name}=id')}; or give what it stands for as columns."
    )
    return Finding("id-like-column", what, {"column": name, **evidence}, fix)


def few_rows_of_class(setup: TrainingSetup) -> Finding | None:
    """Find classes with so few rows that they are hardly learned and their scores are chance."""
    data = setup.data
    if not isinstance(data, TabularData) or data.targets.kind == "regression":
        return None
    train = data.targets.select(data.split.train).counts()
    rare = {name: count for name, count in train.items() if 0 < count < _FEWEST_OF_CLASS}
    if not rare:
        return None
    largest = max(train.values())
    shown = name_some((f"{name!r} {count}" for name, count in rare.items()), 5)
    return Finding(
        "few-rows-of-class",
        f"{len(rare)} of {len(train)} classes have fewer than {_FEWEST_OF_CLASS} train rows "
        f"({shown}; the largest class has {largest:,}). They are hardly learned, and their scores "
        "change by chance.",
        {"classes": len(rare), "smallest": min(rare.values()), "largest": largest},
        "Collect rows of these classes, or join them to one class before you build the data. "
        'choices={"loss": "balanced_cross_entropy"} (--set loss=balanced_cross_entropy) weighs '
        "them like the others.",
    )
