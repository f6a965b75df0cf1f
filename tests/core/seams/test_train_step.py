"""Published methods with ``train_step``: a GAN with two optimizers, and SAM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from flambeau import Batch, Learner, Step, StepResult, Task, TensorData, TrainingOptions
from flambeau.errors import InputError, PlanError


class Gan(nn.Module):
    """A generator and a critic; the real data are normally distributed around 4."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
        self.critic = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, real: Tensor) -> Tensor:
        return self.critic(real)


class GanTask(Task):
    """A task whose score is the distance between generated and real mean."""

    def evaluate(self, model: Any, batches: Any, context: Any) -> dict[str, float]:
        real = torch.cat([batch.input for batch in batches])
        noise = torch.randn(512, 2, generator=torch.Generator().manual_seed(0))
        return {"distance": float((model.generator(noise).mean() - real.mean()).abs())}


def two_optimizers(model: Gan, values: Mapping[str, Any]) -> dict[str, Optimizer]:
    return {
        "critic": Adam(model.critic.parameters(), lr=values["lr"], betas=(0.5, 0.9)),
        "generator": Adam(model.generator.parameters(), lr=values["lr"] / 2, betas=(0.5, 0.9)),
    }


def gan_step(model: Gan, micro_batches: Sequence[Batch], task: Task, step: Step) -> StepResult:
    [batch] = micro_batches
    real = batch.input
    fake = model.generator(torch.randn(len(real), 2))
    softplus = nn.functional.softplus
    critic_loss = (softplus(-model.critic(real)) + softplus(model.critic(fake.detach()))).mean()
    step.backward(critic_loss)
    step.update(critic_loss, "critic")
    generator_loss = softplus(-model.critic(fake)).mean()
    step.backward(generator_loss)
    step.update(generator_loss, "generator")
    return StepResult((critic_loss + generator_loss).detach(), float(len(real)))


def test_a_gan_trains_with_two_optimizers() -> None:
    torch.manual_seed(0)
    real = 4 + 0.5 * torch.randn(512, 1)
    data = TensorData.from_tensors(real, torch.zeros(512), valid=0.25)
    options = TrainingOptions(train_step=gan_step, optimizer=two_optimizers)
    learner = Learner(data, Gan(), task=GanTask(), training=options, quiet=True)
    untrained = learner.evaluate()["distance"]

    history = learner.fit(20, lr=0.01, schedule="constant")

    assert untrained > 3
    assert history.column("valid_distance")[-1] < 0.5


def sam_step(
    model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
) -> StepResult:
    """Foret et al., "Sharpness-Aware Minimization" (https://arxiv.org/abs/2010.01412)."""
    [batch] = micro_batches

    def mean_loss() -> Tensor:
        total, weight = task.loss(task.forward(model, batch, step.context), batch)
        return total / weight

    loss = mean_loss()
    step.backward(loss)
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = torch.stack([p.grad.norm() for p in parameters]).norm()
    with torch.no_grad():
        moves = [0.05 * p.grad / (norm + 1e-12) for p in parameters]
        for parameter, move in zip(parameters, moves, strict=True):
            parameter += move
            parameter.grad = None
    step.backward(mean_loss())
    with torch.no_grad():
        for parameter, move in zip(parameters, moves, strict=True):
            parameter -= move
    step.update(loss)
    return StepResult(loss.detach(), batch.weight or 1.0)


def test_sam_equals_an_explicit_loop() -> None:
    torch.manual_seed(1)
    x, y = torch.randn(96, 3, dtype=torch.float64), torch.randn(96, 1, dtype=torch.float64)
    data = TensorData.from_tensors(x, y, valid=0.25, task="regression")
    model, reference = nn.Linear(3, 1).double(), nn.Linear(3, 1).double()
    reference.load_state_dict(model.state_dict())
    learner = Learner(
        data,
        model,
        choices={"batch_size": 8, "optimizer": "sgd", "weight_decay": 0.0},
        training=TrainingOptions(train_step=sam_step),
        quiet=True,
    )
    batches = [(b.input, b.target) for b in learner.built.loader("train").batches(0)]

    learner.fit(1, lr=0.1, schedule="constant")

    optimizer = SGD(reference.parameters(), lr=0.1)
    for inputs, targets in batches:
        weights = list(reference.parameters())
        before = [w.detach().clone() for w in weights]
        grads = torch.autograd.grad(((reference(inputs) - targets) ** 2).mean(), weights)
        norm = sum((g**2).sum() for g in grads).sqrt()
        with torch.no_grad():
            for weight, grad in zip(weights, grads, strict=True):
                weight += 0.05 * grad / norm
        grads = torch.autograd.grad(((reference(inputs) - targets) ** 2).mean(), weights)
        with torch.no_grad():
            for weight, old, grad in zip(weights, before, grads, strict=True):
                weight.copy_(old)
                weight.grad = grad
        optimizer.step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_an_unknown_optimizer_in_update_is_refused() -> None:
    def own_step(model: Any, micro_batches: Any, task: Any, step: Step) -> StepResult:
        step.update(None, "discriminator")
        raise AssertionError("not reached")

    data = TensorData.from_tensors(torch.randn(40, 2), torch.randn(40, 1), valid=0.25)
    options = TrainingOptions(train_step=own_step)
    learner = Learner(data, nn.Linear(2, 1), training=options, quiet=True)
    with pytest.raises(TypeError, match=r"Unknown optimizer 'discriminator'.*main"):
        learner.fit(1)


def test_a_valid_part_that_the_task_cannot_score_is_refused_at_the_start() -> None:
    steps = 0

    def counted(model: Gan, micro_batches: Any, task: Task, step: Step) -> StepResult:
        nonlocal steps
        steps += 1
        return gan_step(model, micro_batches, task, step)

    options = TrainingOptions(train_step=counted, optimizer=two_optimizers)
    real = torch.randn(40, 1)
    learner = Learner(
        TensorData.from_tensors(real), Gan(), task=Task(), training=options, quiet=True
    )
    with pytest.raises(InputError, match=r"Task defines neither loss nor evaluate.*valid=0"):
        learner.fit(1, lr=1e-3)
    assert steps == 0
    data = TensorData.from_tensors(real, valid=0)
    assert len(Learner(data, Gan(), task=Task(), training=options, quiet=True).fit(1).rows) == 1


def test_data_without_a_target_name_the_task_of_a_train_step() -> None:
    data = TensorData.from_tensors(torch.randn(40, 1), valid=0)
    with pytest.raises(PlanError, match=r"have 0 targets.*train_step .* task=Task\(\)"):
        Learner(data, Gan())
