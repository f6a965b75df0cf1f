"""A controller sets named values of optimizer and task after each evaluation."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from flambeau import Callback, Learner, Regression, TensorData, TrainingOptions
from flambeau.training import History


class Forcing(Regression):
    """A task with the value "teacher_forcing", which it records at each training step."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[float] = []

    @property
    def values(self) -> Mapping[str, float]:
        return {"teacher_forcing": 1.0}

    def forward(self, model, batch, context):
        if context.stage == "train":
            self.recorded.append(context.values["teacher_forcing"])
        return super().forward(model, batch, context)


class Halve:
    """Halves a value after every evaluation."""

    def __init__(self, name: str) -> None:
        self.name = name

    def update(self, history: History, progress: float) -> Mapping[str, float]:
        return {self.name: 0.5 ** len(history.rows)}


class Rates(Callback):
    def __init__(self) -> None:
        self.recorded: list[float] = []

    def on_step_start(self, state) -> None:
        self.recorded.append(state.optimizers["main"].param_groups[0]["lr"])


def make(controller: Halve, callbacks=()) -> tuple[Learner, Forcing]:
    torch.manual_seed(0)
    task = Forcing()
    # Without the doctor, which would also call the task.
    data = TensorData.from_tensors(torch.randn(40, 2), torch.randn(40, 1), valid=0.25)
    learner = Learner(
        data,
        nn.Linear(2, 1),
        task=task,
        choices={"batch_size": 10},
        training=TrainingOptions(controllers=(controller,), doctor=False),
        callbacks=callbacks,
        quiet=True,
    )
    return learner, task


def test_a_value_of_the_task_follows_the_controller() -> None:
    learner, task = make(Halve("teacher_forcing"))
    history = learner.fit(3, lr=0.01)
    assert task.recorded == [1.0] * 3 + [0.5] * 3 + [0.25] * 3
    assert history.column("teacher_forcing") == [1.0, 0.5, 0.25]


def test_a_controller_overrides_the_lr_schedule() -> None:
    rates = Rates()
    learner, _ = make(Halve("lr"), [rates])
    learner.fit(2, lr=0.01, schedule="constant")
    assert rates.recorded == [0.01] * 3 + [0.5] * 3


def test_an_unknown_value_suggests_a_similar_name() -> None:
    learner, _ = make(Halve("teacher_forcign"))
    with pytest.raises(TypeError, match="Did you mean 'teacher_forcing'"):
        learner.fit(1, lr=0.01)
