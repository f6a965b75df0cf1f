"""The scheduled value "dropout_factor": a factor on the probabilities of dropout layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Callback, Learner, Phase, Schedule, TensorData
from flambeau.errors import ArgumentError
from flambeau.training.optim.controller import Controller
from flambeau.training.optim.dropout_factor import DropoutFactor
from flambeau.training.options import TrainingOptions


class Net(nn.Module):
    def __init__(self, p: float = 0.4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.drop, self.head = nn.Linear(4, 8), nn.Dropout(p), nn.Linear(8, 2)
        self.late = nn.AlphaDropout(p / 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.late(self.drop(self.body(x).relu())))


class Seen(Callback):
    def __init__(self, stop_at: int | None = None) -> None:
        self.factors: list[float] = []
        self.stop_at = stop_at

    def on_gradients_ready(self, state: Any) -> None:
        self.factors += [state.model.drop.p / 0.4, state.model.late.p / 0.1]

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.stop_at:
            raise KeyboardInterrupt


def learner(*callbacks: Callback, model: nn.Module | None = None, **more: Any) -> Learner:
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    return Learner(
        TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=8),
        model or Net(),
        choices={"batch_size": 8, "probe": "off", "num_threads": 1},
        callbacks=callbacks,
        quiet=True,
        **more,
    )


FALLING = {"dropout_factor": Schedule("linear", 1.0)}


def test_probabilities_follow_the_schedule_and_are_restored() -> None:
    seen = Seen()
    trained = learner(seen)
    trained.fit(1, lr=1e-3, schedules=FALLING)  # four steps
    assert seen.factors == pytest.approx([1, 1, 2 / 3, 2 / 3, 1 / 3, 1 / 3, 0, 0])
    assert (trained.model.drop.p, trained.model.late.p) == (0.4, 0.1)
    assert trained.history.rows[-1]["dropout_factor"] == 0.0


def test_a_phase_without_the_schedule_has_the_models_probabilities() -> None:
    seen = Seen()
    lr = Schedule("constant", 1e-3)
    learner(seen).fit_phases(
        [
            Phase(1, {"lr": lr, "dropout_factor": Schedule("constant", 0.5)}, bn="train"),
            Phase(1, {"lr": lr}, bn="train"),
        ]
    )
    assert seen.factors == pytest.approx([0.5] * 8 + [1.0] * 8)


def test_the_factor_zero_equals_a_model_without_dropout() -> None:
    off = {"dropout_factor": Schedule("constant", 0.0)}
    scheduled, without = learner(), learner(model=Net(0.0))
    scheduled.fit(1, lr=1e-2, schedules=off)
    without.fit(1, lr=1e-2)
    for a, b in zip(scheduled.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = learner()
    whole.fit(2, lr=1e-2, schedules=FALLING)
    torch.manual_seed(5)
    cut = learner(Seen(stop_at=5), folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cut.fit(2, lr=1e-2, schedules=FALLING)
    again = learner(folder=tmp_path)
    again.resume()
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert again.model.drop.p == cut.model.drop.p == 0.4


class Halving(Controller):
    name = "dropout_factor"

    def update(self, history: Any, progress: float) -> dict[str, float]:
        return {"dropout_factor": 0.5}


def test_a_controller_can_set_it() -> None:
    seen = Seen()
    learner(seen, training=TrainingOptions(controllers=[Halving()])).fit(2, lr=1e-3)
    assert seen.factors == pytest.approx([1.0] * 8 + [0.5] * 8)


def test_a_model_without_dropout_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"no effect: the Net has no nn.Dropout layer"):
        learner(model=Net(0.0)).fit(1, lr=1e-3, schedules=FALLING)


def test_probabilities_stay_between_0_and_1() -> None:
    model = Net(0.8)
    factor = DropoutFactor(model)
    factor.set(2.0)
    assert model.drop.p == 1.0
    factor.set(-1.0)
    assert model.drop.p == 0.0
    factor.set(1.0)
    assert model.drop.p == 0.8
