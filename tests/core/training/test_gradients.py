"""Which gradients an update uses: none from before the fit, none of another optimizer's loss."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from flambeau import (
    Batch,
    Learner,
    Phase,
    Regression,
    Schedule,
    Step,
    StepResult,
    Task,
    TensorData,
    TrainingOptions,
)
from flambeau.errors import FlambeauWarning, NonFiniteError, TrainingError

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(24, 2, generator=DRAWS)
DATA = TensorData.from_loaders(
    [(X[i : i + 8], X[i : i + 8, :1]) for i in (0, 8, 16)], [(X, X[:, :1])]
)


def sgd(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
    return {"main": SGD(model.parameters(), lr=values["lr"])}


def learner(model: nn.Module, task: Task | None = None, **options: Any) -> Learner:
    return Learner(
        DATA,
        model,
        task=task or Regression(["y"]),
        choices={"device": "cpu", "bn": "train", "probe": "off"},
        training=TrainingOptions(doctor=False, **options),
        quiet=True,
    )


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(2, 1)


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(2, 2), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def phases(*trainable: tuple[str, ...] | None) -> list[Phase]:
    return [
        Phase(1, {"lr": Schedule("constant", 0.1)}, trainable=each, name=str(i))
        for i, each in enumerate(trainable)
    ]


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("trainable", [None, ("head",)])
def test_gradients_from_before_the_fit_are_not_used(
    trainable: tuple[str, ...] | None, accumulate: int
) -> None:
    models = TwoLayers(), TwoLayers()
    models[1](X).square().sum().backward()
    for model in models:
        learner(model, accumulate=accumulate).fit_phases(phases(trainable, None))
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)


def test_gradients_left_by_an_interrupted_step_are_not_used() -> None:
    models = linear(), linear()
    stops = [True]

    def step(model: Any, batches: Sequence[Batch], task: Task, step: Step) -> StepResult:
        [batch] = batches
        loss = (model(batch.input) - batch.target).square().mean()
        step.backward(loss)
        if stops and stops.pop():
            raise RuntimeError("stop")
        step.update(loss)
        return StepResult(loss, batch.weight)

    one = learner(models[0], train_step=step)
    with pytest.raises(RuntimeError, match="stop"):
        one.fit(1, lr=0.1)
    one.fit(1, lr=0.1)
    learner(models[1], train_step=step).fit(1, lr=0.1)
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict(), rtol=0, atol=0)


def test_lr_find_does_not_use_gradients_from_before_and_keeps_them() -> None:
    found = []
    for leaves in (False, True):
        model = linear()
        if leaves:
            (1e6 * model(X)).sum().backward()
        before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        one = learner(model, optimizer=sgd)
        found.append(one.lr_find(max_steps=60).sweep.losses)
        for parameter, grad in zip(model.parameters(), before, strict=True):
            assert (grad is None) is (parameter.grad is None)
            assert grad is None or torch.equal(parameter.grad, grad)
    assert found[0] == found[1]


class Gan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.g, self.d = nn.Linear(2, 2), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(x)

    def loss(self, name: str, x: Tensor) -> Tensor:
        fake, softplus = self.g(x), nn.functional.softplus
        if name == "g":
            return softplus(-self.d(fake)).mean()
        return (softplus(-self.d(x)) + softplus(self.d(fake.detach()))).mean()


class NoScore(Task):
    def evaluate(self, model: Any, batches: Any, context: Any) -> dict[str, float]:
        return {}


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("order", ["dg", "gd", "ddg"])
def test_a_gan_in_any_order_equals_a_loop_with_zero_grad(order: str, raw: bool) -> None:
    def step(model: Any, batches: Sequence[Batch], task: Task, step: Step) -> StepResult:
        [batch] = batches
        for name in order:
            loss = model.loss(name, batch.input)
            if raw and name == order[0]:
                loss.backward()
            else:
                step.backward(loss)
            step.update(loss, name)
        return StepResult(loss.detach(), batch.weight)

    def optimizers(model: Any, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        return {name: SGD(getattr(model, name).parameters(), values["lr"]) for name in "dg"}

    mine, theirs = Gan(), Gan()
    one = learner(mine, NoScore(), train_step=step, optimizer=optimizers)
    one.fit_phases(phases(None, None))
    for _ in range(2):
        for i in (0, 8, 16):
            for name in order:
                theirs.zero_grad()
                theirs.loss(name, X[i : i + 8]).backward()
                with torch.no_grad():
                    for parameter in getattr(theirs, name).parameters():
                        parameter -= 0.1 * parameter.grad
    torch.testing.assert_close(mine.state_dict(), theirs.state_dict())


@pytest.mark.filterwarnings(r"ignore:\[summed-loss\]")
@pytest.mark.parametrize("divisor", [1.0, 8.0])
def test_retain_graph_allows_a_second_backward_pass(divisor: float) -> None:
    def step(model: Any, batches: Sequence[Batch], task: Task, step: Step) -> StepResult:
        [batch] = batches
        loss = (model(batch.input) - batch.target).square().sum()
        step.backward(loss, divisor, retain_graph=True)
        once = model.weight.grad.clone()
        step.backward(loss, divisor)
        torch.testing.assert_close(model.weight.grad, 2 * once)
        [grad] = torch.autograd.grad(
            (model(batch.input) - batch.target).square().sum() / divisor, [model.weight]
        )
        torch.testing.assert_close(once, grad)
        step.update(loss)
        return StepResult(loss.detach() / len(batch), batch.weight)

    learner(linear(), train_step=step, optimizer=sgd).fit(1, lr=0.1)


def forgetful(model: Any, batches: Sequence[Batch], task: Task, step: Step) -> StepResult:
    [batch] = batches
    loss = (model(batch.input) - batch.target).square().mean()
    step.backward(loss)
    return StepResult(loss, batch.weight)


def no_backward(model: Any, batches: Sequence[Batch], task: Task, step: Step) -> StepResult:
    with torch.no_grad():
        loss = (model(batches[0].input) - batches[0].target).square().mean()
    return StepResult(loss, batches[0].weight)


@pytest.mark.parametrize("train_step", [forgetful, no_backward])
def test_a_train_step_without_an_update_is_refused(train_step: Any) -> None:
    with pytest.raises(TrainingError, match=r"3 steps without calling step\.update, so no weight"):
        learner(linear(), train_step=train_step).fit(2, lr=0.1)


def direct(model: Any, batches: Any, task: Task, step: Step) -> StepResult:
    result = forgetful(model, batches, task, step)
    step.optimizers["main"].step()
    return result


def test_an_update_every_second_step_and_a_direct_one_are_accepted() -> None:
    def every_second(model: Any, batches: Any, task: Any, step: Step) -> StepResult:
        result = forgetful(model, batches, task, step)
        if step.context.step % 2:
            step.update(result.loss)
        return result

    for train_step in (every_second, direct):
        learner(linear(), train_step=train_step, nonfinite="off").fit(2, lr=0.1)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, "nonfinite"),
        ({"clip_norm": 1.0}, "clip_norm and nonfinite"),
        ({"clip_norm": 1.0, "nonfinite": "off"}, "clip_norm"),
    ],
)
def test_settings_that_a_direct_update_leaves_out_are_named(options: dict, settings: str) -> None:
    message = rf"\[direct-update\] .* updates 'main' without step\.update, so {settings} have no"
    with pytest.warns(FlambeauWarning, match=message):
        learner(linear(), train_step=direct, **options).fit(1, lr=0.1)


@pytest.mark.parametrize("shared", [False, True])
def test_a_direct_update_hides_no_unused_optimizer(shared: bool) -> None:
    """Of two optimizers only "d" is stepped, without step.update or with it."""

    def step(model: Any, batches: Sequence[Batch], task: Task, step: Step) -> StepResult:
        loss = model.loss("d", batches[0].input)
        step.backward(loss)
        step.update(loss, "d") if shared else step.optimizers["d"].step()
        return StepResult(loss, batches[0].weight)

    def optimizers(model: Any, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        parts = {"d": model.d, "g": model.d if shared else model.g}
        return {name: SGD(part.parameters(), values["lr"]) for name, part in parts.items()}

    options = {"train_step": step, "optimizer": optimizers, "nonfinite": "off"}
    with pytest.warns(FlambeauWarning, match=r"\[unused-optimizer\] .* never updated 'g' in the"):
        learner(Gan(), NoScore(), **options).fit(1, lr=0.1)


def test_an_optimizer_that_is_never_updated_is_reported() -> None:
    def step(model: Any, batches: Sequence[Batch], task: Task, step: Step) -> StepResult:
        loss = model.loss("d", batches[0].input)
        step.backward(loss)
        step.update(loss, "d")
        return StepResult(loss, batches[0].weight)

    def optimizers(model: Any, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        return {name: SGD(getattr(model, name).parameters(), values["lr"]) for name in "dg"}

    with pytest.warns(FlambeauWarning, match=r"\[unused-optimizer\] .* never updated 'g' in the"):
        learner(Gan(), NoScore(), train_step=step, optimizer=optimizers).fit(1, lr=0.1)


def test_skipped_updates_are_not_mistaken_for_missing_ones() -> None:
    def step(model: Any, batches: Sequence[Batch], task: Task, step: Step) -> StepResult:
        loss = (model(batches[0].input) / 0.0).sum()
        step.backward(loss)
        step.update(loss)
        return StepResult(loss, batches[0].weight)

    with pytest.raises(NonFiniteError, match="Epoch 1 changed no weights"):
        learner(linear(), train_step=step, nonfinite="skip").fit(1, lr=0.1)


@pytest.mark.parametrize(("order", "mixes"), [("gd", True), ("dg", False), ("dgd", True)])
def test_gradients_that_loss_backward_mixes_are_reported(order: str, mixes: bool) -> None:
    def step(model: Any, batches: Sequence[Batch], task: Task, step: Step) -> StepResult:
        [batch] = batches
        for name in order:
            loss = model.loss(name, batch.input)
            loss.backward()
            step.update(loss, name)
        return StepResult(loss.detach(), batch.weight)

    def optimizers(model: Any, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        return {name: SGD(getattr(model, name).parameters(), values["lr"]) for name in "dg"}

    one = learner(Gan(), NoScore(), train_step=step, optimizer=optimizers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        one.fit_phases(phases(None))
    found = [str(each.message) for each in caught]
    assert [text.startswith("[raw-backward]") for text in found] == [True] * mixes
    assert all("the gradients of 'd' are the sum of both losses" in text for text in found)


def test_one_backward_pass_for_several_updates_is_not_reported() -> None:
    def step(model: Any, batches: Sequence[Batch], task: Task, step: Step) -> StepResult:
        [batch] = batches
        loss = model.loss("g", batch.input)
        loss.backward()
        for name in "dg":
            step.update(loss, name)
        return StepResult(loss.detach(), batch.weight)

    def optimizers(model: Any, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        return {name: SGD(getattr(model, name).parameters(), values["lr"]) for name in "dg"}

    learner(Gan(), NoScore(), train_step=step, optimizer=optimizers).fit_phases(phases(None))
