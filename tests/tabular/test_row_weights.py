"""Rows of weight 0 have no influence on what is measured and learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from flambeau import Learner, Split, TrainingOptions
from flambeau_tabular import TabularData, TabularOptions

N, UNWEIGHTED = 200, 30
CHOICES = {"epochs": 3, "hidden": [8], "probe": "off", "batch_size": 64}


def table(*, damaged: bool) -> pd.DataFrame:
    """Return rows of which the first have weight 0, and absurd cells if ``damaged``."""
    draws = np.random.default_rng(0)
    frame = pd.DataFrame({
        "a": draws.normal(size=N),
        "job": draws.choice(["clerk", "nurse"], N),
        "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(draws.integers(0, 300, N), unit="D"),
        "w": draws.uniform(0.5, 2.0, N),
    })  # fmt: skip
    frame["y"] = 10 + frame["a"].abs() + draws.uniform(0, 1, N)
    frame["c"] = np.where(frame["a"] > 0, "p", "q")
    first = frame.index < UNWEIGHTED
    frame.loc[first, "w"] = 0.0
    if damaged:
        frame.loc[first, ["a", "y"]] = 1e6
        frame.loc[first, "job"] = "only here"
        frame.loc[first, "day"] = pd.Timestamp("1800-01-01")
        frame.loc[first, "c"] = "p"
    return frame


def fitted(target: str, options: TabularOptions, *, damaged: bool) -> Learner:
    frame = table(damaged=damaged).drop(columns={"y": "c", "c": "y"}[target])
    split = Split.from_indices(range(150), range(150, N))
    data = TabularData.from_df(frame, target, weight="w", split=split, options=options)
    training = TrainingOptions(doctor=False)
    learner = Learner(data, choices=CHOICES, training=training, quiet=True)
    torch.manual_seed(0)  # dropout
    learner.fit()
    return learner


OPTIONS: dict[str, tuple[str, TabularOptions]] = {
    "numbers": ("y", TabularOptions()),
    "counts": ("y", TabularOptions(task="poisson")),
    "classes": ("c", TabularOptions()),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_rows_of_weight_0_have_no_influence(case: str) -> None:
    target, options = OPTIONS[case]
    one, other = (fitted(target, options, damaged=damaged) for damaged in (False, True))
    preprocessors: list[Any] = [each.built.preprocessor for each in (one, other)]
    assert preprocessors[0].spec.hash() == preprocessors[1].spec.hash()
    assert one.task.arguments() == other.task.arguments()
    rows = table(damaged=False).tail(50)
    found, expected = other.predict(rows), one.predict(rows)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
    assert other.evaluate() == pytest.approx(one.evaluate(), rel=1e-5)
