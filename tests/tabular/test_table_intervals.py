"""Intervals of tables: their coverage, and that an export has them in a new process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flambeau import Learner
from flambeau_tabular import TabularData

FAST: dict[str, Any] = {"epochs": 3, "batch_size": 128, "hidden": [16], "probe": "off"}
N = 3000


def frame(seed: int = 0) -> pd.DataFrame:
    draws = np.random.default_rng(seed)
    x, where = draws.normal(size=N), draws.choice(["a", "b"], N)
    value = x + (where == "a") + draws.normal(0, 0.3 + 0.5 * (x > 0), N)
    return pd.DataFrame({"x": x, "where": where, "y": value, "c": np.digitize(value, [-0.5, 1.0])})


def calibrated(target: str, seed: int = 0) -> tuple[Learner, pd.DataFrame]:
    rows = frame(seed)[["x", "where", target]]
    rows[target] = rows[target].map(lambda c: f"class {c}") if target == "c" else rows[target]
    data = TabularData.from_df(rows, target, test=0.3, calibration=0.3, seed=seed)
    learner = Learner(data, choices=FAST, seed=seed)
    learner.fit()
    learner.calibrate(intervals=True)
    return learner, rows.iloc[data.split.test]


def covered(target: str, seed: int) -> float:
    learner, test = calibrated(target, seed)
    found = learner.predict(test, interval=0.9)
    if target == "y":
        return float(test["y"].between(found["low"], found["high"]).mean())
    return float(np.mean([c in s for c, s in zip(test["c"], found["classes"], strict=True)]))


@pytest.mark.parametrize("target", ["y", "c"])
def test_coverage_is_nominal_on_average(target: str) -> None:
    # The standard deviation of a split is √(0.9 · 0.1 (1/900 + 1/900)) = 0.014; of six, 0.006.
    shares = [covered(target, seed) for seed in range(6)]
    assert np.mean(shares) == pytest.approx(0.9, abs=0.02)
    assert max(shares) - min(shares) < 0.12


READ = """
import json, sys
import pandas as pd
from flambeau import Predictor
model, table, target = sys.argv[1:]
found = Predictor.load(model).predict(pd.read_csv(table), interval=0.9)
rows = found.to_dict("list")
print(json.dumps({name: [each if isinstance(each, (str, float)) else list(each) for each in cells]
                  for name, cells in rows.items()}))
"""


@pytest.mark.parametrize("target", ["y", "c"])
def test_intervals_survive_export_and_a_new_process(target: str, tmp_path: Path) -> None:
    learner, test = calibrated(target)
    wanted = learner.predict(test.head(50), interval=0.9)
    test.head(50).drop(columns=target).to_csv(tmp_path / "new.csv", index=False)
    model = learner.export(tmp_path / "model")
    words = [sys.executable, "-c", READ, model, tmp_path / "new.csv", target]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    if target == "y":
        for end in ("low", "high"):
            np.testing.assert_allclose(found[end], wanted[end], rtol=1e-6)
        assert (wanted["low"] < wanted["high"]).all()
    else:
        assert [set(each) for each in found["classes"]] == [set(each) for each in wanted["classes"]]
        np.testing.assert_allclose(found["class 1"], wanted["class 1"], rtol=1e-5)
