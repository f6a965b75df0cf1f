"""Bike sharing: rented bicycles per hour, for the last fifth of the time.

Reads hour.csv.gz from a folder, by default ``$FLAMBEAU_DATA/bike_sharing``. Trains on the past and
tests on what follows: a random split would put hours beside each other into train and test. The
columns ``casual`` and ``registered`` sum to the target, and ``instant`` numbers the rows. On one
core this takes about a minute.

    uv run python examples/bike_sharing.py [FOLDER]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from flambeau import Learner, Split
from flambeau_tabular import TabularData, TabularOptions

TARGET = "cnt"
TIME = "dteday"
TEST, VALID = 0.2, 0.1
"""Shares of the rows: the last ones for the test, those before for validation."""


def read(folder: Path) -> pd.DataFrame:
    """Return the hours in the order of time."""
    frame = pd.read_csv(folder / "hour.csv.gz", parse_dates=[TIME])
    return frame.drop(columns=["instant", "casual", "registered"])


def split_of(n: int) -> Split:
    """Return the parts of ``n`` rows in the order of time."""
    test, valid = int(n * (1 - TEST)), int(n * (1 - TEST) * (1 - VALID))
    return Split.from_parts(
        {"train": range(valid), "valid": range(valid, test), "test": range(test, n)}
    )


def main(folder: Path, rows: int | None = None, **choices: Any) -> dict[str, float]:
    """Train, print plan and scores, and return the test scores.

    Args:
        folder: Folder of the file.
        rows: Number of rows; None for all.
        choices: Choices of the plan.
    """
    frame = read(folder).head(rows or 1_000_000)
    # The time is an input, too: it says how the demand grows.
    options = TabularOptions(time=TIME)
    data = TabularData.from_df(frame, TARGET, split=split_of(len(frame)), options=options)
    print(data.report())
    learner = Learner(data, choices=choices)
    print(learner.plan)
    learner.fit()
    scores = learner.evaluate("test")
    print(scores)
    return scores


if __name__ == "__main__":
    default = Path(os.environ.get("FLAMBEAU_DATA", ".")) / "bike_sharing"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
