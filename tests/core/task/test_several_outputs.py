"""Models with several outputs, and labels of -100: the task that they need is named."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import (
    Classification,
    Learner,
    MultiLabel,
    Regression,
    Task,
    TensorData,
    TrainingOptions,
)
from flambeau.errors import InputError, PlanError

X, Y = torch.randn(40, 4), torch.arange(40) % 2
TAGS = torch.stack([Y, 1 - Y, Y], dim=1).float()


class TwoOutputs(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.last = nn.Linear(4, n)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.last(x), x


class FirstLoss:
    def loss(self, outputs: Any, batch: Any) -> Any:
        return super().loss(outputs[0], batch)  # type: ignore[misc]


class Classes(FirstLoss, Classification):
    pass


class Tags(FirstLoss, MultiLabel):
    pass


class Numbers(FirstLoss, Regression):
    pass


TASKS = [
    (Classes(["a", "b"]), Y, 2),
    (Tags(["a", "b", "c"]), TAGS, 3),
    (Numbers(["v"]), X[:, :1], 1),
]


@pytest.mark.parametrize(("task", "targets", "n"), TASKS)
def test_the_methods_to_override_are_named(task: Task, targets: Tensor, n: int) -> None:
    options = TrainingOptions(doctor=False)
    data = TensorData.from_tensors(X, targets)
    learner = Learner(data, TwoOutputs(n), task=task, training=options, quiet=True)
    with pytest.raises(InputError, match=r"of type tuple.*Override update.*and decode"):
        learner.fit(1)
    with pytest.raises(InputError, match=r"of type tuple.*Override decode"):
        learner.predict(X[:2])


def ignored() -> Tensor:
    return torch.where(torch.arange(40) % 5 == 0, -100, Y)


@pytest.mark.parametrize("targets", [ignored().float(), ignored().double().numpy()])
def test_float_labels_of_minus_100_ask_for_a_task(targets: Any) -> None:
    data = TensorData.from_tensors(X, targets)
    with pytest.raises(PlanError, match=r"the lowest is -100.*ignore_index=-100"):
        Learner(data, nn.Linear(4, 2))
    task = Classification(["a", "b"], ignore_index=-100)
    options = TrainingOptions(doctor=False)
    learner = Learner(data, nn.Linear(4, 2), task=task, training=options, quiet=True)
    learner.fit(1)
    valid = data.split.valid
    with torch.no_grad():
        expected = nn.functional.cross_entropy(learner.model(X[valid]), ignored()[valid])
    assert learner.evaluate()["loss"] == pytest.approx(expected.item())


def test_minus_100_as_a_class_or_a_measurement() -> None:
    data = TensorData.from_tensors(X, ignored().float(), task="classification")
    with pytest.raises(InputError, match=r"outside 0\.\.1 .*-100.*ignore_index=-100"):
        _ = Learner(data, nn.Linear(4, 2)).task
    measured = TensorData.from_tensors(X, ignored().float(), task="regression")
    assert Learner(measured, nn.Linear(4, 1)).plan["task"].value == "regression"
