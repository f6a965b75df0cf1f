"""After Ctrl-C a learner has the weights that it would have at a normal end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import EMA, SWA, Callback, EarlyStopping, Learner, TensorData, TrainingOptions
from flambeau.errors import NonFiniteError

X = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + 0.8 * torch.randn(80, generator=torch.Generator().manual_seed(1)) > 0).long()
STEPS = 3  # in an epoch


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


class Watch(Callback):
    """Keeps the weights after each step and interrupts after step ``last``."""

    def __init__(self, last: int, *, signal: int | None = None) -> None:
        self.last, self.signal = last, signal
        self.weights: list[Tensor] = []

    def on_step_end(self, state: Any) -> None:
        self.weights.append(flat(state.model))
        if state.position.step == self.last:
            if self.signal is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), self.signal)


def make(
    *callbacks: Callback, folder: Path, model: nn.Module | None = None, **options: Any
) -> Learner:
    torch.manual_seed(3)
    return Learner(
        TensorData.from_tensors(X, Y, valid=20),
        model or nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2)),
        choices={"batch_size": 20, "probe": "off"},
        training=TrainingOptions(doctor=False, **options),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def interrupted(learner: Learner, train: Any = lambda learner: learner.fit(20, lr=0.2)) -> str:
    with pytest.raises(KeyboardInterrupt) as caught:
        train(learner)
    return "\n".join(caught.value.__notes__)


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM])
def test_the_exponential_average_is_kept(tmp_path: Path, number: int | None) -> None:
    watch = Watch(8, signal=number)
    learner = make(watch, folder=tmp_path, average=EMA(0.7))
    torch.manual_seed(3)
    expected = flat(nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2)))
    note = interrupted(learner)
    for n, weights in enumerate(watch.weights):
        decay = min(0.7, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weights
    torch.testing.assert_close(flat(learner.model), expected, rtol=1e-5, atol=1e-6)
    assert "The model has the weights averaged over 8 steps." in note
    assert "A checkpoint of step 8" in note


def test_the_mean_of_the_last_part_is_kept(tmp_path: Path) -> None:
    watch = Watch(50)
    learner = make(watch, folder=tmp_path, average=SWA(0.5))
    assert "averaged over 20 steps" in interrupted(learner)
    expected = torch.stack(watch.weights[30:]).mean(0)
    torch.testing.assert_close(flat(learner.model), expected, rtol=1e-5, atol=1e-6)


def test_without_an_average_yet_the_last_weights_are_kept(tmp_path: Path) -> None:
    watch = Watch(2)
    learner = make(watch, folder=tmp_path, average=SWA(0.5), keep_best="valid_loss")
    assert "The model has the weights after step 2." in interrupted(learner)
    assert torch.equal(flat(learner.model), watch.weights[-1])


@pytest.mark.parametrize("average", [None, EMA(0.5)])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("two_phases", [False, True])
def test_the_best_epoch_is_kept(
    tmp_path: Path, average: EMA | None, early: bool, two_phases: bool
) -> None:
    watch = Watch(50)
    callbacks = [watch, EarlyStopping(patience=99)] if early else [watch]
    options = {} if early else {"keep_best": "valid_loss"}
    learner = make(*callbacks, folder=tmp_path, average=average, **options)
    if two_phases:
        note = interrupted(learner, lambda learner: learner.fine_tune(20, lr=0.2))
    else:
        note = interrupted(learner)
    losses = learner.history.column("valid_loss")
    best = losses.index(min(losses))
    assert best < len(losses) - 1
    assert learner.evaluate()["loss"] == pytest.approx(losses[best], rel=1e-6)
    assert f"the weights of the best epoch, {best + 1} (by valid_loss)" in note


class Fails(Watch):
    """Raises an error of a user's callback instead."""

    def on_step_end(self, state: Any) -> None:
        try:
            super().on_step_end(state)
        except KeyboardInterrupt:
            raise OSError("no space") from None


class Overflows(nn.Module):
    """Its outputs are infinite from a step on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = nn.Linear(4, 2), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return self.inner(x) / (self.calls < 50)


@pytest.mark.parametrize("average", [None, EMA(0.5)])
def test_an_error_keeps_the_best_epoch(tmp_path: Path, average: EMA | None) -> None:
    learner = make(Fails(50), folder=tmp_path, average=average, keep_best="valid_loss")
    with pytest.raises(OSError, match="no space") as caught:
        learner.fit(20, lr=0.2)
    losses = learner.history.column("valid_loss")
    best = losses.index(min(losses))
    assert best < len(losses) - 1
    assert learner.evaluate()["loss"] == pytest.approx(losses[best], rel=1e-6)
    assert f"weights of the best epoch, {best + 1}" in "\n".join(caught.value.__notes__)
    learner.callbacks = ()
    assert len(learner.resume().rows) == 20


def test_a_step_that_is_not_finite_keeps_the_best_epoch(tmp_path: Path) -> None:
    learner = make(folder=tmp_path, model=Overflows(), keep_best="valid_loss")
    with pytest.raises(NonFiniteError) as caught:
        learner.fit(20, lr=0.2, schedule="constant")
    losses = learner.history.column("valid_loss")
    learner.model.calls = 0  # type: ignore[assignment]
    assert learner.evaluate()["loss"] == pytest.approx(min(losses), rel=1e-6)
    assert "weights of the best epoch" in "\n".join(caught.value.__notes__)


def test_an_error_without_a_choice_keeps_the_last_weights(tmp_path: Path) -> None:
    watch = Fails(8)
    learner = make(watch, folder=tmp_path)
    with pytest.raises(OSError, match="no space") as caught:
        learner.fit(20, lr=0.2)
    assert torch.equal(flat(learner.model), watch.weights[-1])
    assert "The model has" not in "\n".join(caught.value.__notes__)


def test_the_interrupted_run_resumes_from_its_last_step(tmp_path: Path) -> None:
    options: dict[str, Any] = {"average": EMA(0.7), "keep_best": "valid_loss"}
    whole = make(folder=tmp_path / "whole", **options)
    whole.fit(20, lr=0.2)
    learner = make(Watch(20), folder=tmp_path / "part", **options)
    interrupted(learner)
    learner.callbacks = ()
    learner.resume()
    assert torch.equal(flat(learner.model), flat(whole.model))
