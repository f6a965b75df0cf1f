"""Predictions as columns: the same names and values as ``decode`` gives sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from flambeau.data.prediction_columns import columns_of
from flambeau.errors import InputError
from flambeau.task import Classification, MultiLabel, Regression
from flambeau.task.combined import CombinedTask
from flambeau.task.decoded_columns import decode_columns, joined
from flambeau.task.log_link import Poisson
from flambeau.task.quantiles import QuantileRegression
from flambeau.task.task import Task

SCORES = {"scores": [0.1, 0.3, 0.6, 0.9], "total": 4}
AB = ("a", "b")


def with_interval(task: Any, *names: str) -> Any:
    task.calibration = {**task.calibration, "intervals": dict.fromkeys(names, SCORES)}
    return task.with_interval(0.5)


class Loud(Classification):
    """A task with another ``decode``."""

    def decode(self, outputs: torch.Tensor) -> list[Any]:
        return [{"label": each.label.upper()} for each in super().decode(outputs)]


class Own(Regression):
    """A task with its own columns."""

    def decode_columns(self, outputs: torch.Tensor) -> Mapping[str, Any]:
        return {"double": 2 * outputs[:, 0].numpy()}


TASKS: dict[str, Task] = {
    "classes": Classification(("ant", "bee", "cat")),
    "classes named like columns": Classification(("label", "row", "probability", "x")),
    "temperature": Classification(AB, calibration={"temperature": 2.5}),
    "costs": Classification(AB, costs={"false_positive": 1, "false_negative": 5}),
    "sets": with_interval(Classification(("ant", "bee", "classes")), "classes"),
    "labels": MultiLabel(("red", "big", "labels"), threshold=0.4),
    "numbers": Regression(("price", "size"), mean=(1.0, -2.0), std=(3.0, 0.5)),
    "one number": Regression(("price",)),
    "interval": with_interval(Regression(("price",), mean=2.0, std=3.0), "price"),
    "intervals": with_interval(Regression(("price", "size")), "price", "size"),
    "log": Regression(("price",), log="log", calibration={"smearing": [1.2]}),
    "count": Poisson(("visits",)),
    "quantiles": QuantileRegression(("price",), quantiles=(0.1, 0.5, 0.9)),
    "quantiles of two": QuantileRegression(("price", "size"), quantiles=(0.1, 0.5, 0.9)),
    "interval of quantiles": with_interval(
        QuantileRegression(("price",), quantiles=(0.1, 0.5, 0.9)), "price"
    ),
    "own decode": Loud(AB),
}


def outputs_of(task: Task, n: int) -> torch.Tensor:
    outputs = torch.randn(n, task.n_outputs or 1, generator=torch.Generator().manual_seed(0))
    outputs[0] = 0  # classes of equal probability
    return outputs


def check(task: Task, outputs: Any, n: int) -> None:
    found, wanted = decode_columns(task, outputs, n), columns_of(task.decode(outputs))
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        given = found[name]
        assert (given.tolist() if isinstance(given, np.ndarray) else given) == values, name


@pytest.mark.parametrize("case", TASKS)
def test_columns_are_equal_to_decoding_sample_by_sample(case: str) -> None:
    task = TASKS[case]
    check(task, outputs_of(task, 50), 50)


def test_columns_of_several_targets() -> None:
    own = {"income": TASKS["classes"], "price": TASKS["quantiles"], "age": TASKS["numbers"]}
    task = CombinedTask(own)
    outputs = outputs_of(task, 20)
    check(task, outputs, 20)
    other = CombinedTask({"income": Loud(AB), "age": Regression(("age",))})
    check(other, outputs_of(other, 20), 20)


def test_a_task_may_decode_columns_itself() -> None:
    found = decode_columns(Own(("x",)), torch.tensor([[1.0], [2.0]]), 2)
    assert found["double"].tolist() == [2.0, 4.0]
    with pytest.raises(InputError, match=r"Own decodes 2 predictions \('double'\) for 3 inputs"):
        decode_columns(Own(("x",)), torch.tensor([[1.0], [2.0]]), 3)


def test_parts_are_joined_with_none_for_missing_columns() -> None:
    first, second = {"a": np.array([1.0])}, {"a": np.array([2.0, 3.0]), "b": ["x", "y"]}
    found = joined([first, second])
    assert found["a"].tolist() == [1.0, 2.0, 3.0]
    assert found["b"] == [None, "x", "y"]
