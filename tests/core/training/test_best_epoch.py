"""Which epoch is the best, and which weights are evaluated and kept for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import EMA, SWA, Callback, Classification, EarlyStopping, Learner, TensorData
from flambeau import TrainingOptions as Options
from flambeau.training.run_state.best import BestWeights

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
NAN = math.nan


def kept(
    scores: Sequence[float], mode: str = "min", tolerance: float | None = None
) -> tuple[int | None, float]:
    """The epoch that is kept of one score an epoch, and the weight that is restored."""
    model, best = nn.Linear(1, 1, bias=False), BestWeights("valid_loss", mode)
    for epoch, score in enumerate(scores, start=1):
        nn.init.constant_(model.weight, epoch)
        best.update(model, {"valid_loss": score, "epoch": epoch}, tolerance)
        again = BestWeights("valid_loss", mode)
        again.load_state_dict(best.state_dict())
        best = again
    if best.found:
        best.restore(model)
    return best.epoch, model.weight.item()


@pytest.mark.parametrize(
    ("scores", "mode", "expected"),
    [
        ([3, 1, 2], "min", 2),
        ([3, 1, 2], "max", 1),
        ([1, 3, 2], "max", 2),
        ([-3, -1, -2], "max", 2),
        ([-3, -1, -2], "min", 1),
        ([2, 1, 1, 1], "min", 2),  # the first of equals
        ([1, 2, 2, 2], "max", 2),
        ([0, -0.0, 0], "min", 1),
        ([NAN, 2, NAN, 1, NAN], "min", 4),
        ([NAN, 2, NAN, 1, NAN], "max", 2),
        ([math.inf, 5], "min", 2),
    ],
)
def test_the_first_best_epoch_is_kept(scores: list[float], mode: str, expected: int) -> None:
    assert kept(scores, mode) == (expected, expected)


def test_no_epoch_is_kept_if_every_score_is_nan() -> None:
    assert kept([NAN, NAN]) == (None, 2)


def test_a_tolerance_keeps_the_last_that_is_almost_the_best() -> None:
    assert kept([1.0, 1.25, 1.5], tolerance=0.25)[0] == 2  # the limit stays at the best score
    assert kept([1.0, 0.5, 0.75, 1.0], tolerance=0.25)[0] == 3
    assert kept([1.0, 1.25], tolerance=0.0)[0] == 1
    assert kept([1.0, 1.0], tolerance=0.0)[0] == 2
    assert kept([1.0, 0.75, 0.5], "max", tolerance=0.25)[0] == 2


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


class Scripted(Classification):
    """A task with given scores by epoch, which keeps the weights of each evaluation."""

    def __init__(self, scores: Sequence[float]) -> None:
        super().__init__(["a", "b"])
        self.scores = scores
        self.evaluated: list[Tensor] = []

    def evaluate(self, model: Any, batches: Any, context: Any) -> dict[str, float]:
        list(batches)
        self.evaluated.append(flat(model))
        score = self.scores[context.epoch]
        return {"loss": score, "accuracy": score}


class Steps(Callback):
    """Keeps the weights after every step."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def on_step_end(self, state: Any) -> None:
        self.weights.append(flat(state.model))


def fit(task: Scripted, *callbacks: Callback, **options: Any) -> Learner:
    torch.manual_seed(4)
    learner = Learner(
        TensorData.from_tensors(X, (X[:, 0] > 0).long(), valid=20),
        nn.Linear(4, 2),
        task=task,
        choices={"batch_size": 20, "probe": "off"},
        training=Options(doctor=False, **options),
        callbacks=callbacks,
        quiet=True,
    )
    learner.fit(len(task.scores), lr=0.2)
    return learner


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    ("column", "scores", "best"),
    [
        ("valid_loss", [3, 1, 2, 4], 1),
        ("valid_loss", [3, 1, 1, 4], 1),
        ("valid_accuracy", [1, 3, 2, 0], 1),
        ("valid_accuracy", [1, 3, 3, 0], 1),
    ],
)
@pytest.mark.parametrize("average", [None, EMA(0.8)])
def test_a_run_ends_with_the_weights_of_the_best_evaluation(
    early: bool, column: str, scores: list[float], best: int, average: EMA | None
) -> None:
    task = Scripted(scores)
    if early:
        learner = fit(task, EarlyStopping(column, patience=9), average=average)
    else:
        learner = fit(task, keep_best=column, average=average)
    assert torch.equal(flat(learner.model), task.evaluated[best])


def test_an_evaluation_uses_the_exponential_average() -> None:
    task, steps = Scripted([1, 2, 3, 4]), Steps()
    torch.manual_seed(4)
    average = flat(nn.Linear(4, 2))
    fit(task, steps, average=EMA(0.6))
    for step, weights in enumerate(steps.weights):
        decay = min(0.6, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights
        if step % 2:  # two steps an epoch
            torch.testing.assert_close(task.evaluated[step // 2], average, rtol=1e-5, atol=1e-6)
            assert not torch.allclose(task.evaluated[step // 2], weights, rtol=1e-3)


def test_an_evaluation_uses_the_mean_once_it_has_begun() -> None:
    task, steps = Scripted([1, 2, 3, 4]), Steps()
    learner = fit(task, steps, average=SWA(0.5))
    assert torch.equal(task.evaluated[1], steps.weights[3])
    for epochs in (3, 4):
        mean = torch.stack(steps.weights[4 : 2 * epochs]).mean(0)
        torch.testing.assert_close(task.evaluated[epochs - 1], mean, rtol=1e-5, atol=1e-6)
    assert torch.equal(flat(learner.model), task.evaluated[3])
