"""Columns that contain the target: copies of it, columns that predict it alone, and by name."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from flambeau.doctor import Finding, TrainingSetup
from flambeau_tabular.leaks.fixes import declare, drop_column
from flambeau_tabular.leaks.one_column_tree import Floats, ranks, score_alone
from flambeau_tabular.leaks.sample import Column, TableSample, sample_of

_FEWEST_ROWS = 30  # for a copy of the target
_FEWEST_OF_VALUE = 5  # rows of a class, and of a value that stands for a range of the target
_FEWEST_PREDICTED = 500  # train rows from which an AUROC above .999 can be measured
_ALONE = 0.999
_MANY_VALUES = 50  # categories of a column that may be a group of rows
_KNOWN = 0.5  # share of the cells that a copy has to have
_SCREEN = 0.25  # order of the target along the column below which no tree is fitted
_LOG_CHANCE = np.log(1e-6)
_NAMED_AUROC, _NAMED_R2 = 0.9, 0.8
_SHORT_NAME = 3  # letters that a target's name needs to be looked for in other names


def leaking_column(setup: TrainingSetup) -> list[Finding]:
    """Find inputs that are the target in another form, or that predict it almost without error."""
    sample: TableSample | None = setup.cached(sample_of)
    if sample is None or len(sample.rows["train"]) < _FEWEST_ROWS:
        return []
    found: list[Finding] = []
    targets = sample.targets()
    for column in sample.inputs():
        for target, wanted in targets.items():
            values = sample.of("train", column.values)
            finding = _copy(sample, column, values, target, wanted) or _alone(
                sample, column, values, target, wanted
            )
            found += [finding] if finding else []
    return found


def missing_tells_target(setup: TrainingSetup) -> list[Finding]:
    """Find inputs whose missing cells are all of one class, so that they may be filled in later."""
    sample: TableSample | None = setup.cached(sample_of)
    if sample is None or len(sample.rows["train"]) < _FEWEST_ROWS:
        return []
    leaking = {finding.evidence["column"] for finding in setup.cached(leaking_column)}
    found: list[Finding] = []
    for target, wanted in sample.targets().items():
        for column in sample.inputs() if wanted.ndim == 2 else ():
            missing = np.isnan(sample.of("train", column.values))
            count, known = int(missing.sum()), ~missing
            if column.name in leaking or count < _FEWEST_OF_VALUE or not known.any():
                continue
            [*classes] = np.flatnonzero(wanted[missing].any(0))
            # The probability that rows drawn at random are all of this class.
            share = float(wanted[:, classes[0]].mean())
            if len(classes) > 1 or count * np.log(share) > _LOG_CHANCE:
                continue
            found.append(
                Finding(
                    "missing-tells-target",
                    f"In all {count:,} rows in which the input {column.name!r} is missing, "
                    f"{target!r} has the same class, which {share:.0%} of all rows have "
                    f"({sample.describe()}). The cells may have been filled in after the target "
                    "was known.",
                    {"column": column.name, "missing": count, "share of the class": share},
                    f"If so, drop the column: {drop_column(column.name)}.",
                )
            )
    return found


def named_like_target(setup: TrainingSetup) -> list[Finding]:
    """Find inputs with the name of the target in their name, which also predict it well."""
    sample: TableSample | None = setup.cached(sample_of)
    if sample is None or len(sample.rows["train"]) < _FEWEST_ROWS:
        return []
    leaking = {finding.evidence["column"] for finding in setup.cached(leaking_column)}
    found: list[Finding] = []
    targets = sample.targets()
    for column in sample.inputs():
        if column.name in leaking:
            continue
        values = sample.of("train", column.values)
        for target, wanted in targets.items():
            if not _is_named_like(column.name, target):
                continue
            measure, score = score_alone(values, wanted, is_ordered=column.is_ordered)
            if score < (_NAMED_R2 if measure == "R²" else _NAMED_AUROC):
                continue
            found.append(
                Finding(
                    "named-like-target",
                    f"The input {column.name!r} is named like the target {target!r} and predicts "
                    f"it alone with {measure} {score:.3f} ({sample.describe()}, a small tree). It "
                    "may have been computed from the target.",
                    {"column": column.name, measure: score, "rows": len(values)},
                    f"If it is not known at prediction time, drop it: {drop_column(column.name)}.",
                )
            )
    return found


# ---------------------------------------------------------------- copies


def _copy(
    sample: TableSample, column: Column, values: Floats, target: str, wanted: Floats
) -> Finding | None:
    known = ~np.isnan(values)
    if known.sum() < max(_FEWEST_ROWS, _KNOWN * len(values)):
        return None
    x, y = values[known], wanted[known]
    if y.ndim == 2:
        is_copy, what = _names_classes(x, y), "has one value for each class"
    elif column.is_ordered and _same_order(x, y):
        linear = abs(float(np.corrcoef(x, y)[0, 1])) > 1 - 1e-9
        is_copy, what = True, f"is a {'linear' if linear else 'monotone'} function"
    else:
        is_copy, what = _is_binned(x, y), "has one value for each range"
    if not is_copy:
        return None
    part = "" if known.all() else f" ({int(known.sum()):,} of its cells are not missing)"
    return Finding(
        "leaking-column",
        f"The input {column.name!r} {what} of {target!r} in {sample.describe()}{part}: it is the "
        "target in another form.",
        {"column": column.name, "target": target, "rows": len(x), "values": len(np.unique(x))},
        f"Drop the column: {drop_column(column.name)}.",
        severity="error",
    )


def _names_classes(x: Floats, classes: Floats) -> bool:
    """Return whether each value is of one class, and each class of one value."""
    labels = classes.argmax(1)
    counts = np.bincount(labels, minlength=classes.shape[1])
    counts = counts[counts > 0]
    if len(counts) < 2 or counts.min() < _FEWEST_OF_VALUE:
        return False
    distinct = np.unique(x)
    if len(distinct) != len(counts):
        return False
    pairs = np.bincount(labels * len(distinct) + np.searchsorted(distinct, x))
    return int((pairs > 0).sum()) == len(counts)


def _same_order(x: Floats, y: Floats) -> bool:
    """Return whether larger values always have larger targets, or always smaller ones."""
    order = np.lexsort((y, x))
    dx, dy = np.diff(x[order]), np.diff(y[order])
    if len(np.unique(y)) < 2 * _FEWEST_OF_VALUE or ((dx == 0) != (dy == 0)).any():
        return False
    return bool((dy >= 0).all() or (dy <= 0).all())


def _is_binned(x: Floats, y: Floats) -> bool:
    """Return whether each value has a range of the target in which no other value is."""
    order = np.lexsort((x, y))
    runs = 1 + int((np.diff(x[order]) != 0).sum())
    _, counts = np.unique(x, return_counts=True)
    if len(np.unique(y)) < 2 * _FEWEST_OF_VALUE or (counts >= _FEWEST_OF_VALUE).sum() < 2:
        return False
    if runs != len(counts) or len(counts) > len(x) / _FEWEST_OF_VALUE:
        return False
    # A target that two values share is in the range of both.
    ends = np.diff(x[order]) != 0
    return not bool((np.diff(y[order])[ends] == 0).any())


# ---------------------------------------------------------------- columns that predict alone


def _alone(
    sample: TableSample, column: Column, values: Floats, target: str, wanted: Floats
) -> Finding | None:
    if len(values) < _FEWEST_PREDICTED or _order_along(values, wanted) < _SCREEN:
        return None
    measure, score = score_alone(values, wanted, is_ordered=column.is_ordered)
    if not score > _ALONE:
        return None
    group = ""
    if not column.is_ordered and len(np.unique(values)) > _MANY_VALUES:
        group = (
            " If it is a group of similar rows, such as a person, declare it: "
            f"{declare('group', column.name)}."
        )
    return Finding(
        "leaking-column",
        f"The input {column.name!r} alone predicts the target {target!r} with {measure} "
        f"{score:.4f}: a small tree, fitted on one half of {sample.describe()} and scored on the "
        "other.",
        {"column": column.name, "target": target, measure: score, "rows": len(values)},
        f"If it is not known at prediction time, drop it: {drop_column(column.name)}.{group}",
    )


def _order_along(values: Floats, wanted: Floats) -> float:
    """Return a bound on how much of the target a column explains: 0 for nothing, 1 for all of it.

    It compares the targets of neighbours in the order of the column with those of random pairs.
    Equal cells are in the order of the target, so the bound is too high if there are many.
    """
    y = wanted if wanted.ndim == 2 else ranks(wanted)[:, None]
    order = np.lexsort((*y.T, values))
    between = float((np.diff(y[order], axis=0) ** 2).sum())
    at_random = 2 * float(((y - y.mean(0)) ** 2).sum())
    return 1 - between / at_random if at_random > 0 else 0.0


# ---------------------------------------------------------------- names


def _is_named_like(column: str, target: str) -> bool:
    """Return whether the words of the target's name are in the column's name, one after another."""
    words, wanted = list(_words(column)), list(_words(target))
    if len("".join(wanted)) < _SHORT_NAME:
        return False
    ends = range(len(wanted), len(words) + 1)
    return any(words[end - len(wanted) : end] == wanted for end in ends)


def _words(name: str) -> Iterator[str]:
    for part in re.findall(r"[^\W\d_]+|\d+", name):
        yield from (word.lower() for word in re.findall(r"[A-Z]?[^A-Z]+|[A-Z]+", part))
