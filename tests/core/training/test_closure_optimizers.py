"""Optimizers that compute the loss several times in a step: LBFGS, SAM, and the like."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Optimizer

from flambeau import (
    Callback,
    Classification,
    Learner,
    Regression,
    Schedule,
    TensorData,
    TrainingOptions,
)
from flambeau.data import Batch
from flambeau.errors import ArgumentError, InputError, NonFiniteError
from flambeau.training import StepResult

SIZE, N = 8, 32
DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(N, 3, generator=DRAWS, dtype=torch.float64)
Y = (X[:, :1] - 2 * X[:, 1:2]).tanh() + 0.1 * torch.randn(
    N, 1, generator=DRAWS, dtype=torch.float64
)
Factory = Callable[[Any, Any], Mapping[str, Optimizer]]


class SAM(Optimizer):
    """The usual code of SAM: two steps, and a step that needs gradients and a closure."""

    def __init__(self, params: Any, base: Any, rho: float = 0.05, **settings: Any) -> None:
        super().__init__(params, {"rho": rho, **settings})
        self.base_optimizer = base(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        each = [p for group in self.param_groups for p in group["params"]]
        norm = torch.stack([p.grad.norm() for p in each]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["old"] = p.data.clone()
                p.add_(p.grad * (group["rho"] / (norm + 1e-12)))

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.data = self.state[p]["old"]
        self.base_optimizer.step()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise AssertionError("SAM requires a closure")


class Stubborn(SGD):
    """Needs a closure and evaluates it twice, without enabling gradients itself."""

    @torch.no_grad()
    def step(self, closure: Any) -> None:  # type: ignore[override]
        closure()
        super().step(closure)


def net(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.2), nn.Linear(4, 1)).to(dtype)


def learner(
    factory: Any,
    *callbacks: Callback,
    dtype: torch.dtype = torch.float64,
    choices: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    **options: Any,
) -> Learner:
    x, y = X.to(dtype), Y.to(dtype)
    batches = [(x[i : i + SIZE], y[i : i + SIZE]) for i in range(0, N, SIZE)]
    return Learner(
        TensorData.from_loaders(batches, [(x, y)]),
        net(dtype),
        task=Regression(["y"]),
        choices={"device": "cpu", "bn": "train", "probe": "off", **(choices or {})},
        training=TrainingOptions(doctor=False, optimizer=factory, **options),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def lbfgs(model: Any, values: Any) -> dict[str, Optimizer]:
    return {"main": LBFGS(model.parameters(), lr=values["lr"], max_iter=5, history_size=3)}


def wolfe(model: Any, values: Any) -> dict[str, Optimizer]:
    parameters = model.parameters()
    return {"main": LBFGS(parameters, values["lr"], max_iter=5, line_search_fn="strong_wolfe")}


def stubborn(model: Any, values: Any) -> dict[str, Optimizer]:
    return {"main": Stubborn(model.parameters(), values["lr"], momentum=0.9)}


def sam(model: Any, values: Any) -> dict[str, Optimizer]:
    return {"main": SAM(model.parameters(), SGD, lr=values["lr"], momentum=0.9)}


def by_hand(
    factory: Factory,
    epochs: int,
    *,
    dtype: torch.dtype = torch.float64,
    rate: Callable[[int], float] = lambda step: 0.1,
    accumulate: int = 1,
    clip: float | None = None,
) -> tuple[nn.Module, list[float]]:
    """Train as PyTorch's pages do, and return the model and the first loss of each step."""
    model, losses = net(dtype), []
    optimizer: Any = factory(model, {"lr": 0.1})["main"]
    x, y = X.to(dtype), Y.to(dtype)
    torch.manual_seed(1)
    for step in range(epochs * N // (SIZE * accumulate)):
        start = step * SIZE * accumulate % N
        rows = [slice(start + i * SIZE, start + (i + 1) * SIZE) for i in range(accumulate)]
        seen: list[float] = []

        def closure(rows: list[slice] = rows, seen: list[float] = seen) -> Tensor:
            optimizer.zero_grad()
            with torch.enable_grad():
                parts = [nn.functional.mse_loss(model(x[r]), y[r]) / accumulate for r in rows]
                for part in parts:
                    part.backward()
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            loss = torch.stack([part.detach() for part in parts]).sum()
            seen.append(float(loss))
            return loss

        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        if isinstance(optimizer, SAM):
            closure()
            optimizer.first_step()
            closure()
            optimizer.second_step()
        else:
            optimizer.step(closure)
        losses.append(seen[0])
    return model, losses


def same(mine: nn.Module, other: nn.Module) -> bool:
    pairs = zip(mine.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("factory", [lbfgs, wolfe, stubborn, sam])
@pytest.mark.parametrize(
    ("dtype", "accumulate", "clip"),
    [
        (torch.float32, 1, None),
        (torch.float64, 1, 0.1),
        (torch.float64, 2, None),
        (torch.float32, 4, 0.1),
    ],
)
def test_equals_the_loop_by_hand(
    factory: Factory, dtype: torch.dtype, accumulate: int, clip: float | None
) -> None:
    class Seed(Callback):
        def on_fit_start(self, state: Any) -> None:
            torch.manual_seed(1)

    one = learner(factory, Seed(), dtype=dtype, accumulate=accumulate, clip_norm=clip)
    one.fit(2, lr=0.1, schedule="constant")
    expected, losses = by_hand(factory, 2, dtype=dtype, accumulate=accumulate, clip=clip)
    assert same(one.model, expected)
    assert one.history.step_losses == pytest.approx(losses, rel=0)


@pytest.mark.parametrize("factory", [lbfgs, sam])
def test_the_rate_of_each_step_reaches_the_optimizer(factory: Factory) -> None:
    class Seed(Callback):
        def on_fit_start(self, state: Any) -> None:
            torch.manual_seed(1)

    one = learner(factory, Seed())
    one.fit(2, lr=0.1, schedules={"lr": Schedule("linear", 0.1, {"end": 0.0})})
    rates = one.history.step_losses  # one for each step
    schedule = Schedule("linear", 0.1, {"end": 0.0})
    expected, losses = by_hand(factory, 2, rate=lambda step: schedule(step / (len(rates) - 1)))
    assert rates == pytest.approx(losses, rel=1e-12)
    for mine, theirs in zip(one.model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_a_class_and_a_partial_are_enough() -> None:
    whole = learner(partial(LBFGS, max_iter=5, history_size=3), choices={"weight_decay": 0.0})
    other = learner(lbfgs)
    for one in (whole, other):
        torch.manual_seed(2)
        one.fit(1, lr=0.5, schedule="constant")
    assert same(whole.model, other.model)
    assert whole.history.step_losses[-1] < whole.history.step_losses[0]


class StopAt(Callback):
    def on_step_end(self, state: Any) -> None:
        if state.position.step == 5:
            raise KeyboardInterrupt


@pytest.mark.parametrize("factory", [lbfgs, wolfe, sam])
def test_resume_equals_the_uninterrupted_run(factory: Factory, tmp_path: Path) -> None:
    whole = learner(factory)
    whole.fit(3, lr=0.1)
    with pytest.raises(KeyboardInterrupt):
        learner(factory, StopAt(), folder=tmp_path).fit(3, lr=0.1)
    again = learner(factory, folder=tmp_path)
    again.resume()
    assert same(again.model, whole.model)


def test_resume_of_a_long_history_in_float32_is_bit_equal(tmp_path: Path) -> None:
    """Dot products of float32 vectors round differently at another alignment in memory."""

    def make(*callbacks: Callback, folder: Path | None = None) -> Learner:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        x = torch.randn(33, 4)
        return Learner(
            TensorData.from_tensors(x, (x[:, 0] > 0).long()),
            model,
            choices={"device": "cpu", "probe": "off", "batch_size": 8, "weight_decay": 0.0},
            training=TrainingOptions(optimizer=LBFGS, doctor=False),
            callbacks=callbacks,
            folder=folder,
            quiet=True,
        )

    whole = make()
    whole.fit(3, lr=0.05, schedule="constant")
    with pytest.raises(KeyboardInterrupt):
        make(StopAt(), folder=tmp_path).fit(3, lr=0.05, schedule="constant")
    again = make(folder=tmp_path)
    again.resume()
    assert same(again.model, whole.model)


@pytest.mark.parametrize("factory", [lbfgs, sam])
@pytest.mark.parametrize("evaluation", [0, 1])
def test_a_step_that_is_not_finite_restores_the_weights(factory: Factory, evaluation: int) -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.calls = net(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += self.training
            return self.body(x) * (float("nan") if self.calls == evaluation + 1 else 1.0)

    one = learner(factory)
    broken = Learner(one.data, Breaks(), task=one.task, training=one.training, quiet=True)
    with pytest.raises(NonFiniteError):
        broken.fit(1, lr=0.1)
    assert same(broken.model.body, net())


@pytest.mark.parametrize("factory", [lbfgs, sam])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_step_without_targets_changes_nothing(factory: Factory, is_known: bool) -> None:
    class Ignoring(Classification):
        def host_weight(self, batch: Batch) -> float | None:
            return super().host_weight(batch) if is_known else None

    x, none = X[:SIZE], torch.full((SIZE,), -1)
    task = Ignoring(["a", "b"], ignore_index=-1)
    labels = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(3, 2)).double()
    before = [p.detach().clone() for p in model.parameters()]

    class Moved(Callback):
        def on_step_end(self, state: Any) -> None:
            pairs = zip(before, state.model.parameters(), strict=True)
            self.all = [*getattr(self, "all", []), any(not torch.equal(a, b) for a, b in pairs)]

    moved = Moved()
    one = Learner(
        TensorData.from_loaders([(x, none), (x, labels)], [(x, labels)]),
        model,
        task=task,
        training=TrainingOptions(doctor=False, optimizer=factory),
        callbacks=[moved],
        quiet=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one.fit(1, lr=0.1, schedule="constant")
    assert moved.all == [False, True]


def test_an_error_inside_the_step_restores_the_weights() -> None:
    class Fails(Regression):
        calls = 0

        def loss(self, outputs: Any, batch: Batch) -> Any:
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("out of luck")
            return super().loss(outputs, batch)

    one = learner(sam)
    failing = Learner(one.data, net(), task=Fails(["y"]), training=one.training, quiet=True)
    with pytest.raises(RuntimeError, match="out of luck"):
        failing.fit(1, lr=0.1)
    assert same(failing.model, net())


def test_a_train_step_passes_its_own_closure() -> None:
    def physics(model: Any, batches: Sequence[Batch], task: Any, step: Any) -> StepResult:
        [batch] = batches

        def closure() -> Tensor:
            loss = nn.functional.mse_loss(model(batch.input), batch.target)
            step.backward(loss)
            return loss

        return StepResult(step.update_with(closure), batch.weight)

    torch.manual_seed(1)
    one, other = learner(lbfgs, train_step=physics), learner(lbfgs)
    for each in (one, other):
        torch.manual_seed(1)
        each.fit(1, lr=0.1)
    assert same(one.model, other.model)


def test_what_cannot_work_is_refused_by_name() -> None:
    def plain(model: Any, batches: Sequence[Batch], task: Any, step: Any) -> StepResult:
        loss = nn.functional.mse_loss(model(batches[0].input), batches[0].target)
        step.backward(loss)
        step.update(loss)
        return StepResult(loss, batches[0].weight)

    def two(model: Any, values: Any) -> dict[str, Optimizer]:
        return {
            "first": LBFGS(model[0].parameters(), values["lr"]),
            "second": SGD(model[3].parameters(), values["lr"]),
        }

    with pytest.raises(ArgumentError, match=r"step of LBFGS computes.*step\.update_with"):
        learner(lbfgs, train_step=plain).fit(1, lr=0.1)
    with pytest.raises(ArgumentError, match="steps one optimizer, but there are 2: 'first'"):
        learner(two).fit(1, lr=0.1)
    with pytest.raises(InputError, match='nonfinite="skip" is not possible with SAM'):
        learner(sam, nonfinite="skip").fit(1, lr=0.1)
    with pytest.raises(InputError, match=r"LBFGS compares several losses.*fp16"):
        learner(lbfgs, dtype=torch.float32, choices={"precision": "fp16"}).fit(1, lr=0.1)
    with pytest.raises(InputError, match=r"LBFGS has one learning rate.*would get 2"):
        learner(lbfgs).fine_tune(1, lr=0.1)
    with pytest.raises(ArgumentError, match="LBFGS has no weight decay"):
        learner(LBFGS, choices={"weight_decay": 0.1}).fit(1, lr=0.1)


def test_a_closure_that_is_never_called_is_refused() -> None:
    class Never(SGD):
        def step(self, closure: Any) -> None:  # type: ignore[override]
            pass

    with pytest.raises(ArgumentError, match="step of Never did not call the closure"):
        learner(lambda m, v: {"main": Never(m.parameters(), v["lr"])}).fit(1, lr=0.1)
