"""Rows later than the train rows: what the plan decides, and that predictions stay sensible."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from flambeau import Learner
from flambeau_tabular import TabularData

FAST = {"epochs": 8, "batch_size": 64, "hidden": [32], "probe": "off"}


def dated(n: int = 800) -> TabularData:
    """Return rows of three years, whose class depends on the weekday and a number."""
    draws = np.random.default_rng(0)
    days = np.sort(draws.integers(0, 1_095, n))
    dates = np.datetime64("2021-01-01", "D") + days
    x = draws.normal(0, 1, n) + 4.0 * days / 1_095  # the number drifts, too
    weekend = (days + 4) % 7 >= 5
    y = np.where(2.0 * weekend - 1.0 + 0.3 * draws.normal(size=n) > 0, "yes", "no")
    return TabularData.from_df(
        {"day": dates, "x": x, "y": y}, "y", time="day", valid=0.15, test=0.3
    )


def test_the_plan_says_what_happens_beyond_train() -> None:
    data = dated()
    choice = Learner(data).plan["out_of_range"]
    assert (choice.value, choice.alternatives) == ("clip", ("keep",))
    assert "the year and the elapsed time, which never recur" in choice.reason
    assert Learner(data, nn.Linear(1, 2)).plan["out_of_range"].value == "keep"
    distinct = []
    for way in ("clip", "keep"):
        preprocessor = data.preprocessor({"out_of_range": way})
        encoded = preprocessor.encode(data.raw("test")).inputs
        at = preprocessor.spec.number_names.index("day elapsed days")
        distinct.append(len(encoded["numbers"][:, at].unique()))
    assert distinct[0] == 1 < distinct[1]


def test_later_rows_are_predicted_like_the_last_train_rows() -> None:
    """Piecewise linear embeddings are linear beyond their edges, and fell to chance here."""
    data = dated()
    scores = {}
    for way in ("clip", "keep"):
        torch.manual_seed(0)
        learner = Learner(data, choices={**FAST, "out_of_range": way}, seed=0)
        learner.fit()
        scores[way] = learner.evaluate("test")
    assert scores["clip"]["accuracy"] > 0.95
    assert scores["clip"]["loss"] < scores["keep"]["loss"]
