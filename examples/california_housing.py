"""California housing: the median value of the houses of a district, with intervals.

Reads housing.csv.gz from a folder, by default ``$FLAMBEAU_DATA/california_housing``. Trains with
the automatic plan, fits intervals that contain the value in 90% of all districts, and predicts; on
one core this takes about a minute.

    uv run python examples/california_housing.py [FOLDER]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from flambeau import Learner
from flambeau_tabular import TabularData

TARGET = "median_house_value"


def read(folder: Path) -> pd.DataFrame:
    """Return the districts; the value is in 100,000 dollars."""
    frame = pd.read_csv(folder / "housing.csv.gz")
    return frame.assign(**{TARGET: frame[TARGET] / 1e5})


def main(folder: Path, rows: int | None = None, **choices: Any) -> dict[str, float]:
    """Train, print plan, scores and predictions, and return the test scores.

    Args:
        folder: Folder of the file.
        rows: Number of rows; None for all.
        choices: Choices of the plan.
    """
    frame = read(folder).sample(rows or None, frac=None if rows else 1.0, random_state=0)
    data = TabularData.from_df(frame, TARGET, valid=0.1, calibration=0.1, test=0.1)
    learner = Learner(data, choices=choices)
    print(learner.plan)
    learner.fit()
    print(learner.calibrate(intervals=True))
    scores = learner.evaluate("test")
    print(scores)
    print(learner.predict(frame.head(5), interval=0.9))
    return scores


if __name__ == "__main__":
    default = Path(os.environ.get("FLAMBEAU_DATA", ".")) / "california_housing"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
