"""``TriggeredAverage``: when it starts, and what it averages."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from flambeau import (
    Callback,
    Checkpointing,
    Learner,
    Phase,
    Schedule,
    TensorData,
    TrainingOptions,
    TrainState,
)
from flambeau.errors import ArgumentError, InputError
from flambeau.training import History, TriggeredAverage


def history_of(scores: list[float], column: str = "valid_loss") -> History:
    history = History()
    for score in scores:
        history.add({column: score})
    return history


def triggers_at(scores: list[float], spec: TriggeredAverage) -> int | None:
    """Return after how many evaluations the average starts."""
    average = spec.running()
    average.start(nn.Linear(1, 1))
    for n in range(1, len(scores) + 1):
        average.evaluated(history_of(scores[:n], spec.monitor))
        if average.triggered:
            return n
    return None


def published_trigger(scores: list[float], n: int) -> int | None:
    """Algorithm 1 of the paper: the trigger is t > n and v > min(logs[0], …, logs[t - n - 1])."""
    logs: list[float] = []
    for t, score in enumerate(scores):
        if t > n and score > min(logs[: t - n]):
            return t + 1
        logs.append(score)
    return None


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_the_trigger_is_that_of_the_paper(patience: int) -> None:
    draws = random.Random(0)
    found: set[int | None] = set()
    for _ in range(200):
        slope = draws.choice((0.3, 2.0))
        scores = [draws.choice((1.0, 2.0, 3.0, 4.0)) - slope * t for t in range(12)]
        expected = published_trigger(scores, patience)
        assert triggers_at(scores, TriggeredAverage(patience)) == expected, scores
        found.add(expected)
    assert None in found
    assert len(found) > 4


def test_larger_may_be_better() -> None:
    scores = [0.5, 0.7, 0.6, 0.4]
    assert triggers_at(scores, TriggeredAverage(1, "valid_f1", mode="max")) == 4
    assert triggers_at(scores, TriggeredAverage(1, "valid_f1", mode="min")) == 3


def test_only_the_evaluations_of_the_current_fit_count() -> None:
    average = TriggeredAverage(1).running()
    average.start(nn.Linear(1, 1))
    history = history_of([1.0, 1.0, 9.0, 8.0, 7.0])
    history.first_row = 2
    average.evaluated(history)
    assert not average.triggered


# ---------------------------------------------------------------- in a fit

RATE = 0.05


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


def table() -> TensorData:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=draws)
    return TensorData.from_tensors(x, torch.randint(2, (200,), generator=draws), valid=0.2)


def learner(
    spec: TriggeredAverage | None, *callbacks: Callback, folder: Path | None = None
) -> Learner:
    return Learner(
        table(),
        net(),
        choices={"batch_size": 32, "optimizer": "sgd", "bn_statistics": "running"},
        training=TrainingOptions(average=spec),
        callbacks=list(callbacks),
        folder=folder,
        quiet=True,
        seed=1,
    )


def phase(epochs: int) -> list[Phase]:
    return [Phase(epochs, {"lr": Schedule("constant", RATE)})]


def test_the_mean_starts_after_the_trigger() -> None:
    # The labels are random: the validation loss soon rises.
    seen: list[dict[str, Tensor]] = []

    class Weights(Callback):
        def on_step_end(self, state: TrainState) -> None:
            seen.append({n: v.detach().clone() for n, v in state.model.state_dict().items()})

    averaged = learner(TriggeredAverage(2), Weights())
    averaged.fit_phases(phase(25))
    losses = averaged.history.column("valid_loss")
    start = published_trigger(losses, 2)
    assert start is not None
    assert start < 20
    steps_per_epoch = len(seen) // 25
    included = seen[start * steps_per_epoch :]
    final = averaged.model.state_dict()
    for name, value in final.items():
        if value.is_floating_point():
            mean = torch.stack([each[name].double() for each in included]).mean(0)
            torch.testing.assert_close(value.double(), mean, rtol=1e-4, atol=1e-6)
    assert not torch.equal(final["0.weight"], seen[-1]["0.weight"])


def test_without_trigger_the_last_weights_stay() -> None:
    averaged, plain = learner(TriggeredAverage(50)), learner(None)
    averaged.fit_phases(phase(3))
    plain.fit_phases(phase(3))
    for name, value in averaged.model.state_dict().items():
        assert torch.equal(value, plain.model.state_dict()[name]), name


def test_the_mean_is_torchs_asgd() -> None:
    # ASGD with t0=0 copies the weights in its first two steps, and averages from the third on.
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.ASGD(model.parameters(), lr=0.1, lambd=0.0, alpha=0.0, t0=0)
    average = TriggeredAverage(1).running()
    average.start(model)
    average.triggered = True
    for step in range(1, 9):
        model(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step > 1:
            average.update(step, 100)
    with average.swapped(model):
        found = model.weight.detach().clone()
    torch.testing.assert_close(found, optimizer.state[model.weight]["ax"])


def test_a_resumed_run_averages_the_same_steps(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    whole = learner(TriggeredAverage(2), Checkpointing(keep=50), folder=folder)
    whole.fit_phases(phase(25))
    start = published_trigger(whole.history.column("valid_loss"), 2)
    assert start is not None
    for epoch in (start - 1, start, start + 2):
        step = epoch * len(whole.history.step_losses) // 25
        resumed = learner(TriggeredAverage(2))
        copy = shutil.copytree(folder, tmp_path / str(epoch))
        resumed.resume(copy / "checkpoints" / f"step-{step:08}")
        for name, value in resumed.model.state_dict().items():
            assert torch.equal(value, whole.model.state_dict()[name]), name


def test_bad_settings() -> None:
    with pytest.raises((ArgumentError, InputError), match="patience of TriggeredAverage"):
        TriggeredAverage(0)
    with pytest.raises(ArgumentError, match="valid_los"):
        learner(TriggeredAverage(monitor="valid_los")).fit(1)
