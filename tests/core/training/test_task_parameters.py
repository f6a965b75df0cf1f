"""Parameters of a task or a loss are trained, averaged, kept and saved, or refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from flambeau import (
    EMA,
    Batch,
    Callback,
    Classification,
    Learner,
    Phase,
    Regression,
    Schedule,
    TensorData,
    TrainingOptions,
)
from flambeau.errors import InputError

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(24, 4, generator=DRAWS)
Y = torch.arange(24) % 3
PHASE = [Phase(2, {"lr": Schedule("constant", 0.1)})]


def net(outputs: int = 5) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(4, outputs)


class Centres(nn.Module):
    """Cosine logits against one centre a class, with a margin (ArcFace)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.weight = nn.Parameter(torch.randn(3, 5))

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        cosine = F.linear(F.normalize(features), F.normalize(self.weight)).clamp(-0.99, 0.99)
        margin = torch.cos(torch.acos(cosine) + 0.5 * F.one_hot(target, 3))
        return F.cross_entropy(8 * margin, target, reduction="sum")


class ArcFace(Classification):
    def __init__(self, head: Any = None) -> None:
        super().__init__(["a", "b", "c"], metrics={})
        self.head = head or Centres()

    @property
    def n_outputs(self) -> int | None:
        return None

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        return self.head(outputs, batch.target), float(len(batch))

    def update(self, metrics: Any, outputs: Any, batch: Batch) -> None:
        metrics["loss"].update(*self.loss(outputs, batch))


class InList(ArcFace):
    def __init__(self) -> None:
        self.heads = [Centres()]
        super().__init__(self.heads[0].forward)


class AsModule(ArcFace, nn.Module):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        ArcFace.__init__(self)


def learner(task: Any, model: nn.Module, y: Tensor = Y, **arguments: Any) -> Learner:
    options = {"doctor": False, **arguments.pop("options", {})}
    data = TensorData.from_loaders([(X[:12], y[:12]), (X[12:], y[12:])], [(X, y)])
    return Learner(
        data,
        model,
        task=task,
        choices={"device": "cpu", "bn": "train", "probe": "off", "optimizer": "sgd"},
        training=TrainingOptions(**options),
        quiet=True,
        **arguments,
    )


def by_hand(model: nn.Module, head: Any, steps: int = 4) -> None:
    parameters = [
        {"params": [model.weight, *(p for p in head.parameters() if p.ndim > 1)]},
        {"params": [model.bias], "weight_decay": 0.0},
    ]
    optimizer = SGD(parameters, 0.1, weight_decay=5e-4)
    for step in range(steps):
        rows = slice(12 * (step % 2), 12 * (step % 2) + 12)
        optimizer.zero_grad()
        (head(model(X[rows]), Y[rows]) / 12).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", [ArcFace, InList, AsModule])
def test_the_parameters_of_a_loss_are_trained_with_the_plans_optimizer(kind: Any) -> None:
    task, model = kind(), net()
    expected, centres = net(), Centres()
    by_hand(expected, centres)
    learner(task, model).fit_phases(PHASE)
    torch.testing.assert_close(model.state_dict(), expected.state_dict())
    head = task.heads[0] if kind is InList else task.head
    torch.testing.assert_close(head.weight.detach(), centres.weight.detach())


class Uncertainty(Regression):
    """Weights of several losses (Kendall et al.): exp(-s) loss + s."""

    def __init__(self) -> None:
        super().__init__(["a", "b"], metrics={})
        self.log_variance = nn.Parameter(torch.zeros(2))

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        each = (outputs - batch.target).square() * torch.exp(-self.log_variance)
        return (each + self.log_variance).sum(), float(len(batch))


def test_a_parameter_of_the_task_finds_the_variance_of_the_noise() -> None:
    y = torch.randn(24, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 3.0])
    task, model = Uncertainty(), net(2)
    learner(task, model, y).fit_phases([Phase(400, {"lr": Schedule("cosine", 0.05)})])
    residual = (model(X) - y).square().mean(0)
    torch.testing.assert_close(
        task.log_variance.exp().detach(), residual.detach(), rtol=0.02, atol=0
    )


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - self.scale * targets).square() + (self.scale - 2).square()


def test_a_loss_module_of_a_task_of_core_is_trained() -> None:
    loss = Scaled()
    y = X[:, :1]
    learner(Regression(["y"], loss=loss), net(1), y).fit_phases(PHASE)
    assert 1.0 < float(loss.scale.detach()) < 2.0


def test_a_factory_without_the_parameters_of_the_task_is_refused() -> None:
    options = {"optimizer": lambda m, v: {"main": SGD(m.parameters(), v["lr"])}}
    with pytest.raises(InputError, match=r"The task has 1 parameters \(head.weight\) that no"):
        learner(ArcFace(), net(), options=options).fit(1)


def test_a_parameter_that_cannot_be_found_is_refused() -> None:
    hidden = Centres()
    with pytest.raises(InputError, match=r"depends on 1 parameters outside the model .*\(3, 5\)"):
        learner(ArcFace(hidden.forward), net()).fit(1)
    hidden.requires_grad_(False)
    learner(ArcFace(hidden.forward), net()).fit(1)


def test_a_module_in_eval_mode_is_refused_unless_it_is_frozen() -> None:
    with pytest.raises(InputError, match=r"in train mode\) an attribute of the task, or call"):
        learner(ArcFace(Centres().eval()), net()).fit(1)
    head = Centres().eval().requires_grad_(False)
    before = head.weight.clone()
    learner(ArcFace(head), net()).fit(1)
    assert torch.equal(head.weight, before)


def test_lr_find_restores_the_parameters_of_the_task() -> None:
    task = ArcFace()
    before = task.head.weight.detach().clone()
    learner(task, net()).lr_find(max_steps=60)
    assert torch.equal(task.head.weight, before)


def test_the_average_includes_the_parameters_of_the_task() -> None:
    weights: list[Tensor] = []

    class Record(Callback):
        def on_step_end(self, state: Any) -> None:
            weights.append(state.task.head.weight.detach().clone())

    task = ArcFace()
    average = task.head.weight.detach().clone()
    options = {"average": EMA(0.5, warmup=False)}
    learner(task, net(), options=options, callbacks=[Record()]).fit_phases(PHASE)
    for weight in weights:
        average = 0.5 * average + 0.5 * weight
    torch.testing.assert_close(task.head.weight.detach(), average)


def test_the_best_epoch_includes_the_parameters_of_the_task() -> None:
    weights: list[Tensor] = []

    class Record(Callback):
        def on_eval_end(self, state: Any) -> None:
            weights.append(state.task.head.weight.detach().clone())

    task = ArcFace()
    one = learner(task, net(), options={"keep_best": "valid_loss"}, callbacks=[Record()])
    rows = one.fit_phases([Phase(4, {"lr": Schedule(lambda p: 0.1 if p < 0.5 else -0.3)})]).rows
    scores = [row["valid_loss"] for row in rows]
    best = scores.index(min(scores))
    assert best < 3
    assert torch.equal(task.head.weight, weights[best])


def test_a_resumed_run_has_the_parameters_of_the_task(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_step_end(self, state: Any) -> None:
            if state.position.step == 3:
                raise KeyboardInterrupt

    phases = [Phase(3, {"lr": Schedule("cosine", 0.1)})]
    whole, parts = ArcFace(), ArcFace()
    learner(whole, net()).fit_phases(phases)
    with pytest.raises(KeyboardInterrupt):
        learner(parts, net(), folder=tmp_path, callbacks=[Stop()]).fit_phases(phases)
    again = ArcFace()
    with torch.no_grad():
        again.head.weight.zero_()
    learner(again, net(), folder=tmp_path).resume()
    assert torch.equal(again.head.weight, whole.head.weight)
    assert math.isfinite(float(again.head.weight.detach().sum()))
