"""Measure the coverage of 90% intervals on three tables; finished splits are kept in a log.

    python examples/tables_intervals.py adult california bike [--splits 20]

Adult and California: short fits on random splits into train, validation, calibration and test rows
(of the train file of Adult; its test file is only used for the temperature). Bike sharing: parts in
the order of time, with the coverage of each month. Data are read from ``$FLAMBEAU_DATA``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import adult_income
import bike_sharing
import california_housing
import numpy as np
import pandas as pd
from frozen_recipe import read_log
from sklearn.metrics import log_loss
from tables_benchmark import RESULTS
from tables_report import COVERAGE

from flambeau import Learner, Split
from flambeau_tabular import TabularData, TabularOptions

LEVEL = 0.9
EPOCHS = {"adult": 3, "california": 12, "bike": 60}
"""Short fits: coverage does not depend on the quality of the model, only the size of sets does."""


def random_parts(n: int, seed: int) -> Split:
    """Return a random split: 60% train, 10% valid, 15% calibration, 15% test."""
    order = np.random.default_rng(1_000 + seed).permutation(n)
    ends = [0, *(int(n * share) for share in (0.6, 0.7, 0.85)), n]
    names = ("train", "valid", "calibration", "test")
    return Split.from_parts({name: order[ends[at] : ends[at + 1]] for at, name in enumerate(names)})


def fitted(data: TabularData, epochs: int, seed: int) -> Learner:
    """Return a learner after a short fit, before calibration."""
    learner = Learner(data, choices={"epochs": epochs, "device": "cpu"}, seed=seed)
    learner.fit()
    return learner


def adult(folder: Path, seed: int) -> dict[str, Any]:
    """Return coverage and size of the sets on one split, and the log-loss on the test file."""
    frame, final = adult_income.read(folder / "adult")
    split = random_parts(len(frame), seed)
    learner = fitted(
        TabularData.from_df(frame, adult_income.TARGET, split=split), EPOCHS["adult"], seed
    )
    target = final[adult_income.TARGET]
    classes = sorted(target.unique())
    before = log_loss(target, learner.predict(final)[classes])
    temperature = learner.calibrate(intervals=True).values["temperature"]
    after = log_loss(target, learner.predict(final)[classes])
    test = frame.iloc[split.test]
    sets = learner.predict(test, interval=LEVEL)["classes"]
    covered = [label in found for label, found in zip(test[adult_income.TARGET], sets, strict=True)]
    return {
        "coverage": float(np.mean(covered)),
        "size": float(np.mean([len(found) for found in sets])),
        "temperature": temperature,
        "log_loss_before": before,
        "log_loss": after,
    }


def california(folder: Path, seed: int) -> dict[str, Any]:
    """Return coverage and width of the intervals on one split."""
    frame = california_housing.read(folder / "california_housing")
    split = random_parts(len(frame), seed)
    data = TabularData.from_df(frame, california_housing.TARGET, split=split)
    learner = fitted(data, EPOCHS["california"], seed)
    learner.calibrate(intervals=True)
    test = frame.iloc[split.test]
    found = learner.predict(test, interval=LEVEL)
    return covered_by(found, test[california_housing.TARGET])


def bike(folder: Path, seed: int) -> dict[str, Any]:
    """Return coverage and width in the order of time, of the whole test part and of each month."""
    frame = bike_sharing.read(folder / "bike_sharing")
    n = len(frame)
    ends = [0, *(int(n * share) for share in (0.64, 0.7, 0.8)), n]
    names = ("train", "valid", "calibration", "test")
    split = Split.from_parts({name: range(ends[at], ends[at + 1]) for at, name in enumerate(names)})
    options = TabularOptions(time=bike_sharing.TIME)
    data = TabularData.from_df(frame, bike_sharing.TARGET, split=split, options=options)
    learner = fitted(data, EPOCHS["bike"], seed)
    learner.calibrate(intervals=True)
    test = frame.iloc[split.test]
    found = learner.predict(test, interval=LEVEL)
    months = test[bike_sharing.TIME].dt.strftime("%Y-%m")
    by_month = [
        {
            "month": month,
            "rows": int((months == month).sum()),
            **covered_by(found[months == month], test.loc[months == month, bike_sharing.TARGET]),
        }
        for month in months.unique()
    ]
    for each in by_month:
        each["width"] = each.pop("size")
    return {**covered_by(found, test[bike_sharing.TARGET]), "rows": len(test), "months": by_month}


def covered_by(found: pd.DataFrame, target: Any) -> dict[str, Any]:
    """Return the share of targets in their intervals, and the mean width of these."""
    low, high = found["low"].to_numpy(), found["high"].to_numpy()
    within = (low <= target.to_numpy()) & (target.to_numpy() <= high)
    return {"coverage": float(within.mean()), "size": float((high - low).mean())}


MEASURES = {"adult": adult, "california": california, "bike": bike}


def main() -> None:
    """Measure the sets that are named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="+", choices=MEASURES)
    parser.add_argument("--splits", type=int, default=20)
    given = parser.parse_args()
    folder, log = Path(os.environ.get("FLAMBEAU_DATA", ".")), RESULTS / COVERAGE
    log.parent.mkdir(parents=True, exist_ok=True)
    for name in given.sets:
        done = {entry["seed"] for entry in read_log(log) if entry["set"] == name}
        for seed in range(1 if name == "bike" else given.splits):
            if seed in done:
                continue
            cpu = time.process_time()
            entry = {"set": name, "seed": seed, **MEASURES[name](folder, seed)}
            entry["cpu_s"] = round(time.process_time() - cpu, 1)
            with log.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            print(json.dumps(entry), flush=True)


if __name__ == "__main__":
    main()
