"""State how long the prediction of a single row takes: from a dict, and from a frame.

    python examples/row_latency.py

The table is made here: 12 columns of numbers and 8 of categories. The model is not trained, which
does not change the time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

from flambeau import Learner
from flambeau_tabular import TabularData


def table(rows: int) -> pd.DataFrame:
    """Return rows with a target."""
    draws = np.random.default_rng(0)
    columns: dict[str, Any] = {f"number_{at}": draws.normal(size=rows) for at in range(12)}
    for at in range(8):
        columns[f"category_{at}"] = draws.choice([f"value {code}" for code in range(20)], rows)
    return pd.DataFrame(columns).assign(target=draws.choice(["low", "high"], rows))


def milliseconds(function: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Return the median and the 95th percentile of the time of a call."""
    function()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times), float(np.quantile(times, 0.95))


def main(rows: int = 4000, calls: int = 300) -> None:
    """Print the times."""
    frame = table(rows)
    predictor = Learner(TabularData.from_df(frame, "target"), quiet=True).predictor()
    torch.set_num_threads(1)
    one, row = frame.head(1), frame.iloc[0].to_dict()
    for name, items in (("dict", row), ("frame of one row", one), (f"frame of {rows:,}", frame)):
        n_calls = max(3, calls // max(1, len(items) // 100)) if items is frame else calls
        median, late = milliseconds(lambda items=items: predictor.predict(items), n_calls)
        print(f"{name:20} median {median:7.2f} ms   95% below {late:7.2f} ms")


if __name__ == "__main__":
    main()
