"""A synthetic table of the size and shape of Adult."""

from __future__ import annotations

from typing import Any

import numpy as np

NUMBERS, CATEGORIES = 6, (9, 16, 7, 15, 6, 5, 2, 42)
"""The columns of the Adult data: numbers, and the distinct values of each category."""


def adult_sized(rows: int) -> dict[str, Any]:
    """Return a synthetic table with the columns of Adult, and a target that depends on them."""
    draws = np.random.default_rng(0)
    numbers = draws.normal(size=(rows, NUMBERS))
    columns: dict[str, Any] = {f"number {at}": numbers[:, at] for at in range(NUMBERS)}
    score = numbers[:, 0] + numbers[:, 1] * numbers[:, 2]
    for at, size in enumerate(CATEGORIES):
        codes = draws.integers(0, size, rows)
        columns[f"category {at}"] = np.array([f"value {code}" for code in range(size)])[codes]
        score = score + draws.normal(size=size)[codes] / 2
    noise = draws.normal(size=rows)
    return {**columns, "target": np.where(score + noise > 0.9, "high", "low")}
