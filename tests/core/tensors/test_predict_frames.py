"""predict takes a frame (pandas) as it takes the array of its numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import Learner, Predictor, TensorData, TrainingOptions
from flambeau.errors import InputError
from flambeau.task import Classification, MultiLabel, Regression, Task

pd = pytest.importorskip("pandas")

X = np.random.default_rng(0).standard_normal((12, 3))
FRAME = pd.DataFrame(X, columns=["c", "a", "b"], index=range(100, 112))


def predictor(task: Task, x: Any = X, model: nn.Module | None = None) -> Predictor:
    n = len(next(iter(x.values()))) if isinstance(x, dict) else len(x)
    y: Any = {
        "classification": np.arange(n) % 2,
        "multi_label": np.eye(2)[np.arange(n) % 2],
        "regression": np.random.default_rng(1).standard_normal((n, 2)),
    }[task.kind]
    torch.manual_seed(0)
    return Learner(
        TensorData.from_tensors(x, y),
        model or nn.Linear(3, 2),
        task=task,
        training=TrainingOptions(doctor=False),
        quiet=True,
    ).predictor()


TASKS = [Classification(["p", "q"]), MultiLabel(["p", "q"]), Regression(["p", "q"])]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_the_columns_are_the_numbers_of_a_sample(task: Task) -> None:
    """In the order of the frame, also if other types than float64 are among them."""
    made = predictor(task)
    expected = made.predict(X)
    found = made.predict(FRAME)
    assert list(found.index) == list(FRAME.index)
    again = made.predict(FRAME.iloc[::-1])
    pd.testing.assert_frame_equal(again, found.iloc[::-1])
    outputs = made.outputs(X)
    assert torch.equal(made.outputs(FRAME), outputs)
    assert torch.equal(made.outputs(FRAME.rename(columns=str.upper)), outputs)
    pd.testing.assert_frame_equal(made.predict(pd.Series(list(X), index=FRAME.index)), found)
    assert len(expected) == len(found)


def test_columns_of_several_types() -> None:
    made = predictor(TASKS[0])
    frame = pd.DataFrame({"a": [1, 2], "b": [True, False], "c": pd.array([3, 4], dtype="Int64")})
    plain = np.array([[1.0, 1.0, 3.0], [2.0, 0.0, 4.0]])
    assert torch.equal(made.outputs(frame), made.outputs(plain))


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(1, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.last((a + 2 * b).unsqueeze(-1))


def test_inputs_with_names_are_taken_by_name() -> None:
    made = predictor(TASKS[0], {"a": X[:, 1], "b": X[:, 2]}, Sum())
    expected = made.outputs({"a": X[:, 1], "b": X[:, 2]})
    assert torch.equal(made.outputs(FRAME), expected)
    with pytest.raises(InputError, match="no 'b'"):
        made.predict(FRAME[["a", "c"]])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (FRAME.assign(d=1.0), r"4 columns \(c, a, b, d\).* 3 numbers.*frame\[columns\]"),
        (FRAME[["a", "b"]], r"2 columns \(a, b\).* 3 numbers"),
        (FRAME.assign(b="x"), r"'b' has dtype .* not numeric"),
        (FRAME.assign(b=pd.NaT), r"'b' has dtype"),
        (FRAME.assign(a=[np.nan, *X[1:, 1]]), r"Item 0: contains NaN .*nan in column 1"),
        (FRAME.set_axis(["a", "b", "a"], axis=1), r"several columns 'a'"),
    ],
)
def test_a_frame_that_is_not_such_an_array_is_refused(frame: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predictor(TASKS[0]).predict(frame)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
@pytest.mark.parametrize(
    "empty", [FRAME.iloc[:0], pd.Series([], dtype=object)], ids=["frame", "series"]
)
def test_a_frame_without_rows_gives_the_columns(task: Task, empty: Any) -> None:
    made = predictor(task)
    full, found = made.predict(FRAME), made.predict(empty)
    assert list(found.columns) == list(full.columns)
    assert len(found) == 0
    assert found.index.equals(empty.index)
    assert list(found.dtypes) == list(full.dtypes)
    pd.testing.assert_frame_equal(pd.concat([found, full]), full, check_index_type=False)


class Lengths(Task):
    def decode(self, outputs: Tensor) -> list[Any]:
        return [{"norm": float(row.norm())} for row in outputs]


def test_a_task_without_known_outputs_gives_no_columns() -> None:
    data = TensorData.from_tensors(X, np.arange(12) % 2)
    learner = Learner(data, nn.Linear(3, 2), task=Lengths(), quiet=True)
    assert list(learner.predict(FRAME.iloc[:0]).columns) == []
    assert list(learner.predict(FRAME).columns) == ["norm"]
