"""Find targets in memory that could be classes as well as amounts."""

from __future__ import annotations

from collections import Counter

import numpy as np
from torch import Tensor

from flambeau.data.class_labels import is_one_hot, marks_ignored
from flambeau.data.facts import FEWEST_ROWS_PER_CLASS
from flambeau.data.label_rows import NumberRows, read_task_of_rows
from flambeau.data.label_values import MAX_FLOAT_CODES, doubts_about_values
from flambeau.data.reading import DOUBTFUL_BELOW, Reading
from flambeau.data.split import Rows
from flambeau.data.tables import to_list


def doubts_about_targets(target: Tensor, sample_numbers: Rows, n_distinct: int) -> list[Reading]:
    """Return what is doubtful in the task that follows from train targets ``(n,)`` or ``(n, k)``.

    Args:
        target: The targets; text labels and labels with class names leave no doubt.
        sample_numbers: The number of each row in the user's data, for messages.
        n_distinct: Number of distinct values.
    """
    if target.is_complex() or not len(target):
        return []
    if target.ndim == 2 and target.shape[1] > 1:
        rows = NumberRows(target.double().numpy(), target.is_floating_point(), are_arrays=True)
        found = read_task_of_rows(rows, None, to_list(sample_numbers))
        return [found] if found is not None and found.confidence < DOUBTFUL_BELOW else []
    if target.ndim > 2 or marks_ignored(target, None):
        return []
    values: list[float] = to_list(target.reshape(-1))
    if target.is_floating_point():
        is_label = {0.0, 1.0} == set(values) or n_distinct > MAX_FLOAT_CODES
        return [] if is_label else doubts_about_values(values, "regression")
    if n_distinct * FEWEST_ROWS_PER_CLASS <= len(values):
        return doubts_about_values(values, "classification" if min(values) >= -1 else "regression")
    return _rare_numbers(Counter(values))


def doubts_about_first_targets(target: Tensor) -> list[Reading]:
    """Return what is doubtful in the task that follows from the first samples of a loader.

    Args:
        target: The targets of these samples, ``(n,)`` or ``(n, k)``; the others are not known yet.
    """
    if target.is_complex() or target.ndim > 2 or not len(target):
        return []
    first = f"The targets of the first {len(target):,} train samples"
    if target.ndim == 2 and target.shape[1] > 1:
        if is_one_hot(target):
            return [
                Reading(
                    "task",
                    f"{first} have exactly one 1 in {target.shape[1]} columns, as one-hot classes; "
                    "they are read as several labels per sample.",
                    {"columns": target.shape[1]},
                    ("classification",),
                    0.4,
                    "For classes return their numbers from the data set, targets.argmax(1); for "
                    'several labels pass task="multi_label".',
                )
            ]
        return doubts_about_targets(target, np.arange(len(target)), 0)
    is_binary = bool(((target == 0) | (target == 1)).all()) and len(target) > 1
    if not target.is_floating_point() or not is_binary:
        return []
    return [
        Reading(
            "task",
            f"{first} are floats, all 0 or 1; they are read as amounts, with the mean squared "
            "error as the loss.",
            {"samples": len(target)},
            ("classification", "multi_label"),
            0.4,
            "For classes return targets.long() and give n_classes=2; for one logit with binary "
            'cross entropy return columns (batch, 1) and pass task="multi_label"; for amounts '
            'pass task="regression".',
        )
    ]


def _rare_numbers(counts: Counter[float]) -> list[Reading]:
    """Report amounts that could be class numbers: from 0 or 1 on, with few gaps."""
    low, high, n = min(counts), max(counts), counts.total()
    if low not in (0, 1) or high >= 2 * len(counts):
        return []
    return [
        Reading(
            "task",
            f"The targets are {len(counts):,} distinct whole numbers from {low} to {high:,} in "
            f"{n:,} rows. They are read as amounts, because few rows have the same one; but they "
            "could be class numbers.",
            {"distinct": len(counts), "rows": n},
            ("classification",),
            0.4,
            'For classes pass task="classification", or class_names, when you build the data.',
        )
    ]
