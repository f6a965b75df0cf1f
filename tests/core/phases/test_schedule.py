"""Schedules against torch's schedulers where definitions coincide, and against closed forms."""

import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD, Optimizer
from torch.optim import lr_scheduler as reference

from flambeau.errors import ArgumentError, InputError
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import SHAPES, Schedule

N = 41  # steps of a run
PEAK = 0.3


def ours(schedule: Schedule, n: int = N) -> list[float]:
    return [schedule(i / max(1, n - 1)) for i in range(n)]


def torchs(
    make: Callable[[Optimizer], reference.LRScheduler], n: int = N, lr: float = PEAK
) -> list[float]:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(n):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def test_one_cycle_equals_torchs() -> None:
    # torch turns at step pct * n - 1, ours at pct * (n - 1); its final_div counts from the start.
    rates = torchs(
        lambda optimizer: reference.OneCycleLR(
            optimizer,
            max_lr=PEAK,
            total_steps=N + 1,
            pct_start=(0.25 * N + 1) / (N + 1),
            div_factor=25.0,
            final_div_factor=1e5 / 25.0,
            cycle_momentum=False,
        ),
        N,
    )
    schedule = Schedule("one_cycle", PEAK)
    assert [schedule(i / N) for i in range(N)] == pytest.approx(rates, rel=1e-9)


def test_cosine_equals_torchs() -> None:
    rates = torchs(lambda o: reference.CosineAnnealingLR(o, T_max=N - 1, eta_min=PEAK * 0.1))
    schedule = Schedule("cosine", PEAK, {"warmup": 0.0, "end": 0.1})
    # torch multiplies step by step and so gathers rounding.
    assert ours(schedule) == pytest.approx(rates, rel=1e-9)


def test_linear_equals_torchs() -> None:
    rates = torchs(
        lambda o: reference.LinearLR(o, start_factor=0.2, end_factor=0.9, total_iters=N - 1)
    )
    schedule = Schedule("linear", PEAK, {"start": 0.2, "end": 0.9})
    assert ours(schedule) == pytest.approx(rates, rel=1e-9)


def test_step_equals_torchs() -> None:
    rates = torchs(lambda o: reference.MultiStepLR(o, milestones=[10, 30], gamma=0.3))
    schedule = Schedule("step", PEAK, {"milestones": [10 / (N - 1), 30 / (N - 1)], "gamma": 0.3})
    assert ours(schedule) == pytest.approx(rates, rel=1e-12)


@pytest.mark.parametrize(("cycles", "mult", "first"), [(3, 2, 4), (4, 1, 7), (2, 3, 5), (1, 2, 9)])
def test_sgdr_equals_torchs(cycles: int, mult: int, first: int) -> None:
    total = first * sum(mult**i for i in range(cycles))
    rates = torchs(
        lambda o: reference.CosineAnnealingWarmRestarts(o, T_0=first, T_mult=mult), total
    )
    schedule = Schedule("sgdr", PEAK, {"cycles": cycles, "cycle_mult": mult})
    assert [schedule(i / total) for i in range(total)] == pytest.approx(rates, rel=1e-9)
    assert schedule(1.0) == pytest.approx(0.0, abs=1e-12)


def test_sgdr_has_one_restart_between_cycles() -> None:
    values = ours(Schedule("sgdr", 1.0, {"cycles": 3, "cycle_mult": 1.0}), 301)
    rises = [i for i in range(1, 301) if values[i] > values[i - 1]]
    assert rises == [100, 200]
    assert values[100] == values[200] == 1.0


def test_coslog_closed_form() -> None:
    """Equation of the paper: (1 - cos(2 pi log2(1 + 15 t))) / 2 for four cycles."""
    published = Schedule("coslog", 2.0, {"start": 0.0})
    for t in torch.linspace(0, 1, 97, dtype=torch.float64).tolist():
        expected = 1 - math.cos(2 * math.pi * math.log2(1 + 15 * t))
        assert published(t) == pytest.approx(expected, abs=1e-12)
    # The rate is 0 at the end of each cycle and 1 in the middle of it, on a logarithmic axis.
    assert [published((2**i - 1) / 15) for i in range(5)] == pytest.approx([0.0] * 5, abs=1e-12)
    peaks = [(2 ** (i + 0.5) - 1) / 15 for i in range(4)]
    assert [published(peak) for peak in peaks] == pytest.approx([2.0] * 4)


def test_coslog_starts_at_start_and_then_follows_the_paper() -> None:
    ours, published = Schedule("coslog", 1.0, {"start": 0.3}), Schedule("coslog", 1.0, {"start": 0})
    first_peak = (2**0.5 - 1) / 15
    assert ours(0.0) == pytest.approx(0.3)
    assert ours(first_peak / 2) == pytest.approx(0.3 + 0.7 * published(first_peak / 2))
    later = [first_peak, 1 / 15, 0.2, 0.5, 0.9, 1.0]
    assert [ours(t) for t in later] == pytest.approx([published(t) for t in later], abs=1e-12)


def test_flat_cos_closed_form() -> None:
    schedule = Schedule("flat_cos", 2.0, {"pct_start": 0.5, "div_final": 10.0})
    assert [schedule(p) for p in (0.0, 0.25, 0.499)] == [2.0] * 3
    for p in (0.5, 0.6, 0.75, 1.0):
        expected = 0.2 + 1.8 * (1 + math.cos(math.pi * (p - 0.5) / 0.5)) / 2
        assert schedule(p) == pytest.approx(expected, rel=1e-12)


def test_cosine_warms_up_in_a_straight_line() -> None:
    schedule = Schedule("cosine", 1.0, {"warmup": 0.2, "start": 0.0})
    assert [schedule(p) for p in (0.0, 0.05, 0.1, 0.2)] == pytest.approx([0.0, 0.25, 0.5, 1.0])


def test_constant() -> None:
    assert ours(Schedule("constant", 0.7), 3) == [0.7, 0.7, 0.7]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_finite_and_at_most_the_peak(shape: str) -> None:
    values = ours(Schedule(shape, 1.0), 1001)
    assert all(0.0 <= value <= 1.0 for value in values)
    assert max(values) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_of_one_step_learns_something(shape: str) -> None:
    assert ours(Schedule(shape, 1.0), 1)[0] > 0


@pytest.mark.parametrize(
    ("shape", "options", "ends"),
    [
        ("linear", {"start": 0.3, "end": 0.7}, (0.3, 0.7)),
        ("one_cycle", {}, (1 / 25, 1e-5)),
        ("one_cycle", {"pct_start": 0.0}, (1.0, 1e-5)),
        ("one_cycle", {"pct_start": 1.0}, (1 / 25, 1e-5)),
        ("flat_cos", {"pct_start": 1.0}, (1.0, 1e-5)),
        ("cosine", {"warmup": 1.0, "end": 0.5}, (0.04, 0.5)),
    ],
)
def test_ends(shape: str, options: dict[str, float], ends: tuple[float, float]) -> None:
    schedule = Schedule(shape, 1.0, options)
    assert (schedule(0.0), schedule(1.0)) == pytest.approx(ends, rel=1e-12)


def test_a_function_as_shape() -> None:
    schedule = Schedule(lambda progress: progress**2, peak=3.0)
    assert schedule(0.5) == 0.75
    with pytest.raises(ArgumentError, match=r"cannot be saved.*Use the name of a shape: constant"):
        schedule.as_json()
    with pytest.raises(ArgumentError, match=r"\['end'\].*functools.partial"):
        Schedule(lambda progress: progress, 1.0, {"end": 0.0})


@pytest.mark.parametrize("shape", SHAPES)
def test_json_round_trip(shape: str) -> None:
    parameters = list(inspect.signature(SHAPES[shape]).parameters.values())[1:]
    schedule = Schedule(shape, 0.2, {p.name: p.default for p in parameters})
    again = Schedule.from_json(schedule.as_json())
    assert ours(again) == ours(schedule)
    assert again.as_json() == schedule.as_json()


def test_a_phase_keeps_its_schedules() -> None:
    phase = Phase(2, {"lr": Schedule("step", 0.1, {"milestones": (0.25, 0.5)})})
    again = Phase.from_json(phase.as_json())
    assert ours(again.schedules["lr"]) == ours(phase.schedules["lr"])


@pytest.mark.parametrize("progress", [-1e-9, 1.0 + 1e-9, math.nan])
def test_progress_outside(progress: float) -> None:
    with pytest.raises(InputError, match=r"must be from 0 to 1.*i / max\(1, n - 1\)"):
        Schedule("linear")(progress)


@pytest.mark.parametrize(
    ("shape", "options", "match"),
    [
        ("one_cycel", {}, "Unknown schedule 'one_cycel'. Did you mean 'one_cycle'"),
        ("one_cycle", {"pct_strat": 0.2}, "no option 'pct_strat'. Did you mean 'pct_start'"),
        ("one_cycle", {"pct_start": 1.2}, "must be from 0 to 1, not 1.2"),
        ("one_cycle", {"div": 0.0}, "must be positive, not 0.0"),
        ("cosine", {"warmup": -0.1}, "must be from 0 to 1, not -0.1"),
        ("step", {"milestones": [3, 5]}, "milestones .* progress values from 0 to 1"),
        ("step", {"milestones": 0.5}, "milestones .* progress values from 0 to 1"),
        ("sgdr", {"cycles": 1.5}, "whole number"),
        ("coslog", {"cycles": 0}, "whole number"),
        ("coslog", {"start": 1.5}, "from 0 to 1"),
        ("linear", {"end": [1.0]}, "must be a number"),
        ("linear", {"end": math.nan}, "must be a number"),
        (7, {}, "a name or a function of progress, not 7"),
    ],
)
def test_refusals(shape: str, options: dict[str, float], match: str) -> None:
    with pytest.raises((ArgumentError, InputError), match=match):
        Schedule(shape, 1.0, options)


def test_the_peak_is_a_number() -> None:
    with pytest.raises(InputError, match="peak must be a finite number"):
        Schedule("linear", math.inf)


def test_schedules_remember_nothing() -> None:
    schedule = Schedule("one_cycle", 0.1)
    first = schedule(0.9)
    schedule(0.1)
    assert schedule(0.9) == first
