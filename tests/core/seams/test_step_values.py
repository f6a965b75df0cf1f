"""``Task.step_values`` are set each step, unless a schedule or a controller sets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Learner, TensorData, TrainingOptions
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError
from flambeau.phases.schedule import Schedule
from flambeau.task.classification import Classification
from flambeau.task.task import StepContext


class DecreasingShare(Classification):
    """A task whose value "share" decreases with the steps; it records the value of each step."""

    recorded: list[float]

    @property
    def values(self) -> Mapping[str, float]:
        return {"share": 1.0}

    @property
    def step_values(self) -> Mapping[str, Callable[[int], float]]:
        return {"share": lambda step: 1.0 - 0.01 * step}

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        if context.stage == "train":
            self.recorded.append(context.values["share"])
        return super().forward(model, batch, context)


def learner(**training: Any) -> Learner:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=draws)
    task = DecreasingShare(["a", "b"])
    task.recorded = []
    data = TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=8)
    options = TrainingOptions(doctor=False, **training)
    choices = {"batch_size": 8, "probe": "off"}
    return Learner(data, nn.Linear(3, 2), task=task, choices=choices, training=options, quiet=True)


def test_it_is_set_before_every_step() -> None:
    run = learner()
    run.fit(2)
    run.fit(1)  # a second fit continues the count of steps
    expected = [1.0 - 0.01 * step for step in range(12)]
    assert run.task.recorded == pytest.approx(expected)  # type: ignore[attr-defined]
    assert run.history.column("share") == pytest.approx([0.97, 0.93, 0.89])


def test_a_schedule_of_the_phase_overrides_it() -> None:
    run = learner()
    run.fit(1, schedules={"share": Schedule("constant", 0.5)})
    assert set(run.task.recorded) == {0.5}  # type: ignore[attr-defined]
    run.fit(1)
    assert run.task.recorded[4:] == pytest.approx([0.96, 0.95, 0.94, 0.93])  # type: ignore[attr-defined]


def test_a_controller_overrides_it_from_its_first_update() -> None:
    class Half:
        def update(self, history: Any, progress: float) -> Mapping[str, float]:
            return {"share": 0.5}

    run = learner(controllers=(Half(),))
    run.fit(2)
    assert run.task.recorded == pytest.approx([1.0, 0.99, 0.98, 0.97] + [0.5] * 4)  # type: ignore[attr-defined]


def test_an_undeclared_value_is_refused() -> None:
    run = learner()
    kind = type("Odd", (DecreasingShare,), {"step_values": {"shares": lambda step: 1.0}})
    run.task.__class__ = kind
    with pytest.raises(ArgumentError, match=r"'shares', set by the task's step_values.*'share'"):
        run.fit(1)
