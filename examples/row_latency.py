"""State how long the prediction of a single row takes: from a dict, and from a frame.

    python examples/row_latency.py --out row_latency.json

The table is made here: 12 columns of numbers and 8 of categories. The model is not trained, which
does not change the time. All inputs take turns, so that a disturbance of the machine falls on each
of them alike, and the file has the times of all calls, with the load of the machine at the start.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import torch

from flambeau import Learner
from flambeau_bench.machine import commit, host
from flambeau_tabular import TabularData
from flambeau_tabular.sklearn import FlambeauClassifier

WARM_UP = 20
"""Calls before the measured ones."""


def table(rows: int) -> pd.DataFrame:
    """Return rows with a target."""
    draws = np.random.default_rng(0)
    columns: dict[str, Any] = {f"number_{at}": draws.normal(size=rows) for at in range(12)}
    for at in range(8):
        columns[f"category_{at}"] = draws.choice([f"value {code}" for code in range(20)], rows)
    return pd.DataFrame(columns).assign(target=draws.choice(["low", "high"], rows))


def calls(frame: pd.DataFrame) -> dict[str, Callable[[], Any]]:
    """Return the calls to measure, by name."""
    data = TabularData.from_df(frame, "target")
    predictor = Learner(data, "mlp", choices={"device": "cpu"}, quiet=True).predictor()
    x = frame.drop(columns="target")
    one, row, polars_row = x.head(1), x.iloc[0].to_dict(), pl.from_pandas(x.head(1))
    estimator = FlambeauClassifier("mlp", epochs=1, device="cpu").fit(x, frame["target"])
    return {
        "dict": lambda: predictor.predict(row),
        "pandas frame of one row": lambda: predictor.predict(one),
        "polars frame of one row": lambda: predictor.predict(polars_row),
        "estimator, pandas frame of one row": lambda: estimator.predict_proba(one),
        f"pandas frame of {len(frame):,} rows": lambda: predictor.predict(x),
    }


def measure(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each call; the calls take turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for at in range(WARM_UP + rounds):
        for name, function in functions.items():
            # A call on many rows takes as long as many calls on one.
            if name.endswith("rows") and at % 10:
                continue
            gc.collect(0)
            start = time.perf_counter()
            function()
            if at >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def machine() -> dict[str, Any]:
    """Return what the times depend on."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        **host(),
        **commit(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "pandas": pd.__version__,
    }


def main(rows: int = 4000, rounds: int = 500, out: Path | None = None) -> None:
    """Print the times, and write them to a file."""
    torch.set_num_threads(1)
    state = machine()
    times = measure(calls(table(rows)), rounds)
    for name, each in times.items():
        median, late = statistics.median(each), float(np.quantile(each, 0.95))
        print(f"{name:35} median {median:7.2f} ms   95% below {late:7.2f} ms   {len(each)} calls")
    if out is not None:
        rounded = {name: [round(value, 3) for value in each] for name, each in times.items()}
        out.write_text(json.dumps({"machine": state, "milliseconds": rounded}) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    main(options.rows, options.rounds, options.out)
