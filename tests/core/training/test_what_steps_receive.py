"""The batches, values and weights that training steps and evaluations receive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from flambeau import Callback, Learner, Phase, Regression, Schedule, TensorData, TrainingOptions
from flambeau.data import Batch, Transform
from flambeau.errors import NonFiniteError
from flambeau.training.optim.scheduled_values import StepValues

X = torch.arange(1.0, 13.0).reshape(6, 2)
Y = torch.ones(6, 1)


class Recorder(nn.Module):
    """Keeps the inputs of each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(2, 1)
        self.seen: dict[bool, list[Tensor]] = {True: [], False: []}

    def forward(self, x: Tensor) -> Tensor:
        self.seen[self.training].append(x.clone())
        return self.linear(x)


def shift(batch: Batch, seed: int) -> Batch:
    return replace(batch, inputs={"input": batch.input + 3})


def double(batch: Batch, seed: int) -> Batch:
    return replace(batch, inputs={"input": batch.input * 2})


class Shifted(TensorData):
    """Its augmentation adds 3 to the raw inputs."""

    def transforms(self, values: Mapping[str, Any]) -> Sequence[Transform]:
        return (shift,)


def fit(
    model: nn.Module,
    data: TensorData,
    *callbacks: Callback,
    task: Any = None,
    how: Mapping[str, Any] | None = None,
    phases: Sequence[Phase] = (Phase(1, {"lr": Schedule("constant", 1e-3)}),),
    **options: Any,
) -> Learner:
    learner = Learner(
        data,
        model,
        task=task or Regression(["y"]),
        choices={
            "device": "cpu",
            "bn": "train",
            "probe": "off",
            "optimizer": "sgd",
            "weight_decay": 0.0,
            "momentum": 0.0,
            **(how or {}),
        },
        training=TrainingOptions(doctor=False, **options),
        callbacks=callbacks,
        quiet=True,
    )
    learner.fit_phases(phases)
    return learner


def test_augmentation_then_normalisation_then_user_transforms_in_training_alone() -> None:
    model = Recorder()
    data = Shifted.from_tensors(X, Y, valid=(X, Y))
    fit(
        model,
        data,
        how={"batch_size": 6, "normalisation": "standard", "targets": "as_is"},
        transforms=(double,),
    )
    mean, std = X.mean(0), X.std(0, correction=0)
    [trained], [evaluated] = model.seen[True], model.seen[False]
    expected = 2 * (X + 3 - mean) / std  # in any order of the rows
    torch.testing.assert_close(trained.sort(0).values, expected.sort(0).values)
    torch.testing.assert_close(evaluated, (X - mean) / std)


class DeviceWeight(Regression):
    """Only the loss returns the weight of a batch."""

    def host_weight(self, batch: Batch) -> float | None:  # type: ignore[override]
        return None

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        total, weight = super().loss(outputs, batch)
        return total, torch.as_tensor(float(weight))


@pytest.mark.parametrize("task", [Regression(["y"]), DeviceWeight(["y"])])
def test_the_train_loss_weights_steps_by_their_samples(task: Regression) -> None:
    sizes = (1, 3, 2)
    batches = [(x, y) for x, y in zip(X.split(sizes), Y.split(sizes), strict=True)]
    model = Recorder()
    with torch.no_grad():
        expected = float(nn.functional.mse_loss(model.linear(X), Y))
    still = (Phase(1, {"lr": Schedule("constant", 1e-30)}),)
    learner = fit(model, TensorData.from_loaders(batches, [(X, Y)]), task=task, phases=still)
    assert learner.history.column("train_loss") == pytest.approx([expected], rel=1e-6)


@pytest.mark.parametrize("steps", [127, 128, 129, 256, 257, 300])
def test_each_step_gets_the_value_of_its_own_progress(steps: int) -> None:
    """Values are computed for many steps at once; also after a resume in the middle of them."""

    class Values(Callback):
        def __init__(self) -> None:
            self.lr: list[float] = []

        def on_step_end(self, state: Any) -> None:
            self.lr.append(state.values["lr"])

    seen, schedule = Values(), Schedule("linear", 1e-3, {"end": 0.5})
    batches = [(X[:1], Y[:1])] * steps
    data = TensorData.from_loaders(batches, [(X, Y)])
    fit(Recorder(), data, seen, phases=[Phase(1, {"lr": schedule})])
    assert seen.lr == [schedule(step / (steps - 1)) for step in range(steps)]


class WithNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.linear = nn.LayerNorm(2), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


@pytest.mark.parametrize("way", ["schedule", "controller"])
def test_a_scheduled_weight_decay_reaches_only_what_decays(way: str) -> None:
    class Decays(Callback):
        def on_step_end(self, state: Any) -> None:
            groups = state.optimizers["main"].param_groups
            decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
            self.seen = {name: decay[id(p)] for name, p in state.model.named_parameters()}

    class Sets:
        name = "weight_decay"

        def update(self, history: Any, progress: float) -> dict[str, float]:
            return {"weight_decay": 0.5}

    decays = Decays()
    constant = {"lr": Schedule("constant", 1e-3)}
    scheduled = {**constant, "weight_decay": Schedule("constant", 0.5)}
    by_schedule = way == "schedule"
    fit(
        WithNorm(),
        TensorData.from_loaders([(X, Y)], [(X, Y)]),
        decays,
        phases=[Phase(2, scheduled if by_schedule else constant)],
        controllers=() if by_schedule else (Sets(),),
    )
    expected = {name: 0.0 for name, _ in WithNorm().named_parameters()}
    assert decays.seen == {**expected, "linear.weight": 0.5}


def test_a_group_of_the_user_without_weight_decay_keeps_none() -> None:
    def factory(model: Any, values: Any) -> dict[str, Optimizer]:
        groups = [
            {"params": [model.linear.weight], "weight_decay": 0.1},
            {"params": [model.linear.bias], "weight_decay": 0.0},
        ]
        return {"main": SGD(groups, values["lr"])}

    class Decays(Callback):
        def on_step_end(self, state: Any) -> None:
            self.seen = [g["weight_decay"] for g in state.optimizers["main"].param_groups]

    decays = Decays()
    scheduled = {name: Schedule("constant", 0.5) for name in ("lr", "weight_decay")}
    data = TensorData.from_loaders([(X, Y)], [(X, Y)])
    fit(Recorder(), data, decays, phases=[Phase(1, scheduled)], optimizer=factory)
    assert decays.seen == [0.5, 0.0]


def test_the_lr_scales_of_micro_batches_are_averaged_by_weight() -> None:
    model = nn.Linear(2, 1)
    optimizer = SGD(model.parameters(), 0.1)
    values = StepValues(model, {"main": optimizer}, {"lr": 0.1}, {})
    values.start_phase(Phase(1, {"lr": Schedule("constant", 0.1)}), 1)
    batches = [Batch({"input": X}, weight=w, lr_scale=s) for w, s in ((1.0, 2.0), (3.0, 0.4))]
    values.set(0, batches)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * (2.0 * 1 + 0.4 * 3) / 4)


def test_clip_norm_bounds_the_update() -> None:
    model = Recorder()
    before = [p.detach().clone() for p in model.parameters()]
    big = TensorData.from_loaders([(X, 1e4 * Y)], [(X, Y)])
    still = (Phase(1, {"lr": Schedule("constant", 1.0)}),)
    fit(model, big, clip_norm=0.01, phases=still)
    moved = [p.detach() - old for p, old in zip(model.parameters(), before, strict=True)]
    assert float(torch.cat([m.flatten() for m in moved]).norm()) == pytest.approx(0.01, rel=1e-4)


class Root(Regression):
    """Adds a root at 0, whose value is finite and whose gradient is not."""

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Any]:
        total, weight = super().loss(outputs, batch)
        return total + ((outputs - outputs.detach()) * 1.0).square().sum().sqrt(), weight


class Infinite(Regression):
    """Adds a constant that is infinite: the loss is not finite, but its gradients are."""

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Any]:
        total, weight = super().loss(outputs, batch)
        return total + math.inf, weight


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("kind", [Root, Infinite])
def test_loss_and_gradients_are_checked_with_and_without_clipping(
    kind: type[Regression], clip_norm: float | None
) -> None:
    data = TensorData.from_loaders([(X, Y)] * 2, [(X, Y)])
    model = Recorder()
    with pytest.raises(NonFiniteError):
        fit(model, data, task=kind(["y"]), clip_norm=clip_norm)
    skipped = Recorder()
    with pytest.raises(NonFiniteError, match="each of its 2 updates"):
        fit(skipped, data, task=kind(["y"]), clip_norm=clip_norm, nonfinite="skip")
    for mine in (model, skipped):
        for parameter, start in zip(mine.parameters(), Recorder().parameters(), strict=True):
            assert torch.equal(parameter, start)


def test_an_infinite_loss_ends_an_fp16_run_although_overflows_do_not() -> None:
    data = TensorData.from_loaders([(X / 100, Y / 100)] * 2, [(X, Y)])
    with pytest.raises(NonFiniteError):
        fit(Recorder(), data, task=Infinite(["y"]), how={"precision": "fp16"})


@pytest.mark.parametrize("clip_norm", [None, 1e-3, 10.0])
def test_fp16_clips_unscaled_gradients(clip_norm: float | None) -> None:
    def moved(precision: str) -> Tensor:
        model = Recorder()
        nn.init.zeros_(model.linear.weight)
        nn.init.zeros_(model.linear.bias)  # else the scaled gradients of the first step overflow
        data = TensorData.from_loaders([(X / 100, Y / 100)], [(X, Y)])
        still = (Phase(1, {"lr": Schedule("constant", 0.1)}),)
        how = {"precision": precision}
        fit(model, data, phases=still, clip_norm=clip_norm, how=how)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    torch.testing.assert_close(moved("fp16"), moved("fp32"), rtol=0.01, atol=1e-6)
