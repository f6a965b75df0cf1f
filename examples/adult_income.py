"""Adult: whether a person earns more than 50,000 dollars, with sets of classes that contain it.

Reads adult_train.csv.gz and adult_test.csv.gz from a folder, by default ``$FLAMBEAU_DATA/adult``.
The test file is used for the final scores only. Trains with the automatic plan, calibrates, and
predicts; on one core this takes about a minute.

    uv run python examples/adult_income.py [FOLDER]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from flambeau import Learner
from flambeau_tabular import TabularData

TARGET = "income"


def read(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of both files; cells with a question mark are missing."""
    train, test = (
        pd.read_csv(folder / f"adult_{part}.csv.gz", na_values="?", skipinitialspace=True)
        for part in ("train", "test")
    )
    return train, test


def main(folder: Path, rows: int | None = None, **choices: Any) -> dict[str, float]:
    """Train, print plan, scores and predictions, and return the test scores.

    Args:
        folder: Folder of the files.
        rows: Number of rows of each file; None for all.
        choices: Choices of the plan.
    """
    train, test = (frame.head(rows or len(frame)) for frame in read(folder))
    data = TabularData.from_df(train, TARGET, valid=0.1, calibration=0.1, test=test)
    print(data.report())
    learner = Learner(data, choices=choices)
    print(learner.plan)
    learner.fit()
    print(learner.calibrate(intervals=True))
    scores = learner.evaluate("test")
    print(scores)
    print(learner.predict(test.head(5), interval=0.9))
    return scores


if __name__ == "__main__":
    default = Path(os.environ.get("FLAMBEAU_DATA", ".")) / "adult"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else default)
