"""Optimizers that wrap others: schedules reach the parameters, and the state is resumed."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from flambeau import Callback, Learner, Regression, Schedule, TensorData, TrainingOptions
from flambeau.errors import ArgumentError

X = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
Y = X[:, :1] - 2 * X[:, 1:2]
Make = Callable[[Any, float], Optimizer]


class Slow:
    """The slow weights of Lookahead: every second step the weights move half of the way back."""

    def slow(self: Any) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state.setdefault("slow", p.detach().clone())
                state["count"] = state.get("count", 0) + 1
                if state["count"] % 2 == 0:
                    state["slow"].add_(p.detach() - state["slow"], alpha=0.5)
                    p.data.copy_(state["slow"])


class SameGroups(Slow, Optimizer):
    """Shares the list of groups with its optimizer."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.optimizer = inner
        self.param_groups = inner.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.optimizer.step()
        self.slow()


class SameDictionaries(Slow, Optimizer):
    """Has another list of the same groups: torch's constructor makes it."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.optimizer = inner

    step = SameGroups.step


class OwnGroups(Slow, Optimizer):
    """Has groups of its own, without a rate."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__([p for group in inner.param_groups for p in group["params"]], {"k": 2})
        self.optimizer = inner

    step = SameGroups.step


class PropertyGroups(Slow, Optimizer):
    """Has no groups: a property returns those of its optimizer."""

    def __init__(self, inner: Optimizer) -> None:
        self.optimizer = inner
        self.defaults: dict[str, Any] = {}
        self.state: Any = defaultdict(dict)
        for name in vars(inner):
            if name.endswith("_hooks"):
                setattr(self, name, {})

    param_groups = property(lambda self: self.optimizer.param_groups)  # type: ignore[assignment]
    step = SameGroups.step


class OwnFormat(SameGroups):
    """Has a format of its own for its state, and forgets to share the groups after loading."""

    def state_dict(self) -> dict[str, Any]:
        return {"slow": super().state_dict(), "fast": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict["slow"])
        self.optimizer.load_state_dict(state_dict["fast"])


class Parts(Optimizer):
    """One optimizer for matrices and another one for the rest, in a list."""

    def __init__(self, inner: Optimizer) -> None:
        [group, *_] = inner.param_groups
        parameters = list(group["params"])
        super().__init__(parameters, {})
        lr = group["lr"]
        self.parts = [
            SGD([p for p in parameters if p.ndim > 1], 2 * lr, momentum=0.9),
            AdamW([p for p in parameters if p.ndim <= 1], lr),
        ]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()


WRAPPERS = [SameGroups, SameDictionaries, OwnGroups, PropertyGroups, OwnFormat, Parts]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))


def factory(kind: Any) -> Callable[[Any, Any], dict[str, Optimizer]]:
    return lambda model, values: {
        "main": kind(AdamW(model.parameters(), lr=values["lr"], weight_decay=0.1))
    }


def learner(kind: Any, *callbacks: Callback, folder: Path | None = None) -> Learner:
    batches = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 32, 8)]
    return Learner(
        TensorData.from_loaders(batches, [(X, Y)]),
        net(),
        task=Regression(["y"]),
        choices={"device": "cpu", "bn": "train", "probe": "off"},
        training=TrainingOptions(doctor=False, optimizer=factory(kind)),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def by_hand(kind: Any, rates: list[float]) -> nn.Module:
    model = net()
    optimizer: Any = factory(kind)(model, {"lr": 1.0})["main"]
    inner = [
        *getattr(optimizer, "parts", ()),
        *filter(None, [getattr(optimizer, "optimizer", None)]),
    ]
    groups = [group for each in inner for group in each.param_groups]
    ratios = [group["lr"] for group in groups]
    for step, rate in enumerate(rates):
        rows = slice(step * 8 % 32, step * 8 % 32 + 8)
        for group, ratio in zip(groups, ratios, strict=True):
            group["lr"] = rate * ratio
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X[rows]), Y[rows]).backward()
        optimizer.step()
    return model


def close(one: nn.Module, other: nn.Module, tolerance: float) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_the_schedule_reaches_the_optimizer_inside(kind: Any) -> None:
    one = learner(kind)
    schedule = Schedule("linear", 0.1, {"end": 0.01})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one.fit(3, schedules={"lr": schedule})
    # Adam's fused and single-tensor forms differ in the last bits.
    close(one.model, by_hand(kind, [schedule(step / 11) for step in range(12)]), 1e-5)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_factors_of_layer_groups_reach_the_optimizer_inside(kind: Any) -> None:
    class Rates(Callback):
        def on_step_end(self, state: Any) -> None:
            optimizer = state.optimizers["main"]
            inner = getattr(optimizer, "optimizer", None) or optimizer.parts[1]
            [self.first, self.last] = [
                group["lr"]
                for p in (state.model[0].bias, state.model[2].bias)
                for group in inner.param_groups
                if any(p is each for each in group["params"])
            ]

    rates = Rates()
    one = learner(kind, rates)
    one.fine_tune(1, lr=0.1)
    assert 0 < rates.first < rates.last


class StopAt(Callback):
    def on_step_end(self, state: Any) -> None:
        if state.position.step == 5:
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", WRAPPERS)
def test_resume_equals_the_uninterrupted_run(kind: Any, tmp_path: Path) -> None:
    whole = learner(kind)
    whole.fit(3, lr=0.1)
    with pytest.raises(KeyboardInterrupt):
        learner(kind, StopAt(), folder=tmp_path).fit(3, lr=0.1)
    again = learner(kind, folder=tmp_path)
    again.resume()
    close(again.model, whole.model, 0)


@pytest.mark.parametrize("kind", [SameDictionaries, OwnGroups, Parts])
def test_weight_decay_and_momentum_reach_the_optimizer_inside(kind: Any) -> None:
    seen: list[tuple[float, float]] = []

    class Settings(Callback):
        def on_step_end(self, state: Any) -> None:
            optimizer = state.optimizers["main"]
            inner = getattr(optimizer, "optimizer", None) or optimizer.parts[1]
            [group] = inner.param_groups
            seen.append((group["weight_decay"], group["betas"][0]))

    constant = {name: Schedule("constant", 0.5) for name in ("weight_decay", "momentum")}
    learner(kind, Settings()).fit(1, lr=0.1, schedules=constant)
    assert set(seen) == {(0.5, 0.5)}


def test_a_rate_of_the_factory_inside_the_wrapper_becomes_the_plans() -> None:
    def fixed(model: Any, values: Any) -> Mapping[str, Optimizer]:
        return {"main": OwnGroups(SGD(model.parameters(), 0.03))}

    one = learner(SameGroups)
    other = Learner(
        one.data, net(), task=one.task, training=TrainingOptions(optimizer=fixed), quiet=True
    )
    other.fit(1, schedule="constant")
    assert other.history.column("lr") == [0.03]


def test_a_wrapper_that_is_no_optimizer_is_refused_by_name() -> None:
    class Plain:
        def __init__(self, inner: Optimizer) -> None:
            self.inner = inner

        def step(self) -> Tensor | None:
            return self.inner.step()

    with pytest.raises(ArgumentError, match=r"'main' is a Plain, which is not a torch\.optim"):
        learner(Plain).fit(1, lr=0.1)
