"""Schedulers of torch: used as schedules, refused where the loop would overwrite their rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer, lr_scheduler

from flambeau import Callback, Learner, Phase, Regression, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau.phases import Schedule
from flambeau.phases.torch_schedule import torch_schedule

X = torch.randn(24, 2, generator=torch.Generator().manual_seed(0))
EPOCHS, STEPS = 4, 12
Make = Callable[[Optimizer], lr_scheduler.LRScheduler]


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_step_end(self, state: Any) -> None:
        self.seen.append(state.optimizers["main"].param_groups[0]["lr"])


def learner(*callbacks: Callback, **arguments: Any) -> Learner:
    torch.manual_seed(0)
    batches = [(X[i : i + 8], X[i : i + 8, :1]) for i in (0, 8, 16)]
    options = {"doctor": False, **arguments.pop("options", {})}
    return Learner(
        TensorData.from_loaders(batches, [(X, X[:, :1])]),
        nn.Linear(2, 1),
        task=Regression(["y"]),
        choices={"device": "cpu", "bn": "train", "probe": "off", "optimizer": "sgd"},
        training=TrainingOptions(**options),
        callbacks=callbacks,
        quiet=True,
        **arguments,
    )


def of_torch(make: Make, steps: int, lr: float) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


SCHEDULERS: list[Make] = [
    lambda o: lr_scheduler.StepLR(o, 2),
    lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS),
    lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=STEPS + 1, cycle_momentum=False),
    lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.5)], [2]
    ),
]


@pytest.mark.filterwarnings("ignore:The epoch parameter in")
@pytest.mark.parametrize("make", SCHEDULERS)
@pytest.mark.parametrize("length", [EPOCHS, STEPS])
def test_the_rates_are_those_of_torch(make: Make, length: int) -> None:
    rates = Rates()
    one = learner(rates)
    one.fit(EPOCHS, schedules={"lr": torch_schedule(make, length, lr=0.1)})
    each = [rate for rate in of_torch(make, length, 0.1) for _ in range(STEPS // length)]
    assert rates.seen == pytest.approx(each, rel=1e-12)
    assert one.history.column("lr") == pytest.approx(each[2::3], rel=1e-12)


def test_a_run_with_a_scheduler_of_torch_is_resumed(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_step_end(self, state: Any) -> None:
            if state.position.step == 7:
                raise KeyboardInterrupt

    schedules = {"lr": torch_schedule(lambda o: lr_scheduler.StepLR(o, 2), EPOCHS, 0.1)}
    whole = learner()
    whole.fit(EPOCHS, schedules=schedules)
    with pytest.raises(KeyboardInterrupt):
        learner(Stop(), folder=tmp_path).fit(EPOCHS, schedules=schedules)
    again = learner(folder=tmp_path)
    again.resume()
    torch.testing.assert_close(again.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_another_length_than_that_of_the_phase_is_refused() -> None:
    schedule = torch_schedule(lambda o: lr_scheduler.StepLR(o, 2), 6, 0.1)
    with pytest.raises(InputError, match="has 6 values, but its phase has 4 epochs of 12 steps"):
        learner().fit(EPOCHS, schedules={"lr": schedule})
    with pytest.raises(InputError, match="has 6 values"):
        learner().fit_phases([Phase(3, {"weight_decay": schedule})])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lr_scheduler.ReduceLROnPlateau, "depends on scores.*ReduceOnPlateau"),
        (lambda o: lr_scheduler.OneCycleLR(o, 0.3, total_steps=9), "also changes the momentum"),
        (lambda o: lr_scheduler.CyclicLR(o, 0.1, 0.3), "also changes the momentum"),
    ],
)
def test_schedulers_that_are_more_than_rates_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        torch_schedule(make, 8, 0.1)


def test_a_scheduler_that_the_factory_attaches_is_refused() -> None:
    def factory(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        optimizer = SGD(model.parameters(), values["lr"])
        lr_scheduler.StepLR(optimizer, 1)
        return {"main": optimizer}

    with pytest.raises(ArgumentError, match="scheduler of torch is attached to the SGD"):
        learner(options={"optimizer": factory}).fit(1)


class AtFitStart(Callback):
    def on_fit_start(self, state: Any) -> None:
        self.scheduler = lr_scheduler.StepLR(state.optimizers["main"], 1)

    def on_step_end(self, state: Any) -> None:
        self.scheduler.step()


class ByHand(Callback):
    def on_step_end(self, state: Any) -> None:
        for group in state.optimizers["main"].param_groups:
            group["lr"] *= 0.5


class BeforeTheStep(Callback):
    def on_step_start(self, state: Any) -> None:
        state.optimizers["main"].param_groups[0]["lr"] = 1e-5


@pytest.mark.parametrize("kind", [AtFitStart, ByHand, BeforeTheStep])
def test_a_rate_that_other_code_sets_is_refused(kind: type[Callback]) -> None:
    with pytest.raises(ArgumentError, match=r"scheduler of torch|now 0\.05|now 1e-05"):
        learner(kind()).fit(2, lr=0.1, schedule="constant")


def test_a_table_of_rates_can_be_saved() -> None:
    schedule = Schedule("table", 0.1, {"values": [1.0, 0.5]})
    assert Schedule.from_json(schedule.as_json()) == schedule
    with pytest.raises(InputError, match="values of the schedule 'table' must be a list"):
        Schedule("table", 0.1, {"values": []})


LATER: list[Make] = [
    lambda o: lr_scheduler.LambdaLR(o, lambda step: min(1.0, (step + 1) / 4)),
    lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], optimizer=o
    ),
    lambda o: lr_scheduler.PolynomialLR(o, 8),
    lambda o: torch.optim.swa_utils.SWALR(o, 0.05),
]


@pytest.mark.parametrize("make", LATER)
def test_warm_ups_restarts_and_chains_have_the_rates_of_torch(make: Make) -> None:
    schedule = torch_schedule(make, STEPS, 0.1)
    rates = [schedule(step / (STEPS - 1)) for step in range(STEPS)]
    assert rates == pytest.approx(of_torch(make, STEPS, 0.1), rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda o: lr_scheduler.LambdaLR(o, [lambda s: 1.0, lambda s: 0.5]),
            "one param group: Exp",
        ),
        (lr_scheduler.StepLR, "one param group: .*missing.*step_size"),
        (lr_scheduler.StepLR(SGD([nn.Parameter(torch.zeros(1))], 0.1), 2), "make is a StepLR"),
        (lambda o: None, "make returned None"),
        (
            lambda o: lr_scheduler.StepLR(SGD([nn.Parameter(torch.zeros(1))], 0.1), 2),
            "instead of a scheduler of the optimizer it gets",
        ),
    ],
)
def test_what_does_not_make_a_scheduler_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        torch_schedule(make, 8, 0.1)


def attached() -> lr_scheduler.LRScheduler:
    return lr_scheduler.StepLR(SGD([nn.Parameter(torch.zeros(1))], 0.1), 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedules": {"lr": attached()}}, r"schedule of 'lr' is <torch.*torch_schedule\(lambda"),
        ({"schedules": {"lr": lr_scheduler.StepLR}}, r"torch_schedule\(lambda"),
        ({"schedules": attached()}, r"schedules is <torch.*torch_schedule\(lambda"),
        ({"schedules": {"weight_decay": 0.1}}, r"'weight_decay' is 0\.1\. Give a Schedule"),
        ({"schedules": {"lr": lambda progress: 0.1}}, r"Give Schedule\(function, peak\)"),
        ({"schedule": attached()}, r"schedule is <torch.*torch_schedule\("),
        ({"schedule": lr_scheduler.StepLR}, r"torch_schedule\("),
    ],
)
def test_a_scheduler_in_place_of_a_schedule_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises((ArgumentError, PlanError), match=message):
        learner().fit(2, **arguments)


def test_a_phase_refuses_a_scheduler() -> None:
    with pytest.raises(ArgumentError, match="torch_schedule"):
        Phase(2, {"lr": attached()})  # type: ignore[dict-item]


def test_a_scheduler_in_place_of_a_controller_is_refused() -> None:
    plateau = lr_scheduler.ReduceLROnPlateau(SGD([nn.Parameter(torch.zeros(1))], 0.1))
    with pytest.raises(ArgumentError, match=r"no method update.*ReduceOnPlateau"):
        TrainingOptions(controllers=(plateau,))  # type: ignore[arg-type]
