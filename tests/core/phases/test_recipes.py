"""Recipes in real fits: each step equals a closed form, and a resumed run goes on with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Callback, Learner, Schedule, TensorData
from flambeau.errors import InputError
from flambeau.phases import recipes

ROWS, BATCH, PER_EPOCH = 80, 16, 4  # 64 train rows
LR = 0.02


class Net(nn.Module):
    """Batch norm, dropout and four groups from stem to head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.stem = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU())
        self.first = nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(self.stem(x))))


GROUPS = ("stem", "first", "second", "head")


class Seen(Callback):
    """From the optimizer at every step: rate and momentum by group, and which groups learn."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []

    def on_gradients_ready(self, state: Any) -> None:
        model = state.model
        settings = {
            id(p): group for group in state.optimizers["main"].param_groups for p in group["params"]
        }
        first = {name: next(iter(getattr(model, name).parameters())) for name in GROUPS}
        self.steps.append(
            {
                "phase": state.phase.name,
                "lr": {name: settings[id(p)]["lr"] for name, p in first.items()},
                "beta1": settings[id(first["head"])]["betas"][0],
                "weight_decay": settings[id(first["head"])]["weight_decay"],
                "learn": tuple(n for n, p in first.items() if p.grad is not None),
            }
        )


class Crash(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.at:
            raise KeyboardInterrupt


def make(*callbacks: Callback, folder: Path | None = None) -> Learner:
    x = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return Learner(
        TensorData.from_tensors(x, y, valid=ROWS - 64),
        Net(),
        choices={"batch_size": BATCH},
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


# ---------------------------------------------------------------- closed forms, written anew


def cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def one_cycle(peak: float, i: int, n: int, pct: float = 0.25) -> float:
    t = i / (n - 1)
    if t < pct:
        return cosine(peak / 25, peak, t / pct)
    return cosine(peak, peak / 1e5, 1.0 if pct == 1 else (t - pct) / (1 - pct))


def triangle(peak: float, t: int, total: int, cut_frac: float = 0.1, ratio: float = 32) -> float:
    """Equation 3 of Howard and Ruder without the rounding of ``cut``."""
    cut = total * cut_frac
    p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
    return peak * (1 + p * (ratio - 1)) / ratio


Expected = list[tuple[tuple[str, ...], dict[str, float]]]


def all_at(rates: list[float]) -> Expected:
    return [(GROUPS, dict.fromkeys(GROUPS, rate)) for rate in rates]


def scaled(rate: float, factors: Mapping[str, float]) -> dict[str, float]:
    return {name: rate * factor for name, factor in factors.items()}


SPACED = {"stem": 1e-2, "first": 1e-2 ** (2 / 3), "second": 1e-2 ** (1 / 3), "head": 1.0}
DECAYED = {"stem": 0.75**3, "first": 0.75**2, "second": 0.75, "head": 1.0}
ULMFIT = {"stem": 2.6**-3, "first": 2.6**-2, "second": 1 / 2.6, "head": 1.0}


def tuned(factors: Mapping[str, float], epochs: int = 3) -> Expected:
    n = PER_EPOCH * epochs
    head = [(("head",), dict.fromkeys(GROUPS, one_cycle(LR, i, PER_EPOCH, 0.99))) for i in range(4)]
    return head + [(GROUPS, scaled(one_cycle(LR / 2, i, n), factors)) for i in range(n)]


def unfrozen(epochs: int = 2) -> Expected:
    expected: Expected = []
    for count in (1, 2, 3, 4):
        n = PER_EPOCH * (epochs if count == 4 else 1)
        expected += [(GROUPS[-count:], scaled(triangle(LR, i, n - 1), ULMFIT)) for i in range(n)]
    return expected


def restarts() -> Expected:
    lengths = (PER_EPOCH, 2 * PER_EPOCH, 4 * PER_EPOCH)
    return all_at([cosine(LR, 0.0, i / (n - 1)) for n in lengths for i in range(n)])


Fit = Callable[[Learner], Any]
RECIPES: Mapping[str, tuple[Fit, Expected]] = {
    "one_cycle": (
        lambda learner: learner.fit_one_cycle(3, lr=LR),
        all_at([one_cycle(LR, i, 12) for i in range(12)]),
    ),
    "flat_cos": (
        lambda learner: learner.fit_flat_cos(3, lr=LR),
        all_at(
            [
                LR if i / 11 < 0.75 else cosine(LR, LR / 1e5, (i / 11 - 0.75) / 0.25)
                for i in range(12)
            ]
        ),
    ),
    "sgdr": (lambda learner: learner.fit_sgdr(3, epochs=1, lr=LR), restarts()),
    "slanted_triangular": (
        lambda learner: learner.fit(3, lr=LR, schedule="slanted_triangular"),
        all_at([triangle(LR, i, 11) for i in range(12)]),
    ),
    "fine_tune": (lambda learner: learner.fine_tune(3, lr=LR), tuned(SPACED)),
    "fine_tune with layer decay": (
        lambda learner: learner.fine_tune(3, lr=LR, layer_decay=0.75),
        tuned(DECAYED),
    ),
    "gradual unfreezing": (lambda learner: learner.gradual_unfreeze(2, lr=LR), unfrozen()),
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_step_of_a_fit_equals_the_closed_form(name: str) -> None:
    run, expected = RECIPES[name]
    seen = Seen()
    run(make(seen))
    assert [step["learn"] for step in seen.steps] == [learn for learn, _ in expected]
    for step, (_, rates) in zip(seen.steps, expected, strict=True):
        # Both compute in double precision, in another order.
        assert step["lr"] == pytest.approx(rates, rel=1e-12, abs=1e-17)


def test_equation_3_itself_where_the_cut_is_a_whole_step() -> None:
    total, cut_frac, ratio = 100, 0.1, 32
    cut = math.floor(total * cut_frac)
    at = Schedule("slanted_triangular", 0.01)
    for t in range(total + 1):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        assert at(t / total) == pytest.approx(0.01 * (1 + p * (ratio - 1)) / ratio, rel=1e-12)


def test_momentum_goes_down_as_the_rate_goes_up_and_other_values_follow_their_own() -> None:
    seen = Seen()
    learner = make(seen)
    learner.fit_one_cycle(2, lr=LR, momentum=True)
    for i, step in enumerate(seen.steps):
        t = i / 7
        down, up = cosine(0.95, 0.85, t / 0.25), cosine(0.85, 0.95, (t - 0.25) / 0.75)
        assert step["beta1"] == pytest.approx(down if t < 0.25 else up, rel=1e-12)
    seen.steps.clear()
    learner.fit(1, lr=LR, schedules={"weight_decay": Schedule("linear", 0.3)})
    falling = [0.3 * (1 - i / 3) for i in range(4)]
    assert [step["weight_decay"] for step in seen.steps] == pytest.approx(falling)
    assert {step["beta1"] for step in seen.steps} == {0.9}


def outcome(learner: Learner) -> list[Any]:
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in learner.history.rows]
    weights = {name: value.tolist() for name, value in learner.model.state_dict().items()}
    return [list(learner.history.step_losses), rows, weights]


@pytest.mark.parametrize("name", RECIPES)
def test_resume_in_any_phase_is_exact(name: str, tmp_path: Path) -> None:
    run, expected = RECIPES[name]
    seen = Seen()
    whole = make(seen)
    torch.manual_seed(5)
    run(whole)
    phases = [step["phase"] for step in seen.steps]
    # In the second step of each phase, and after its last one.
    starts = [i for i, phase in enumerate(phases) if i == 0 or phases[i - 1] != phase]
    ends = [*starts[1:], len(expected) - 1]
    for at in sorted({*(start + 2 for start in starts), *ends}):
        folder = tmp_path / str(at)
        broken = make(Crash(at), folder=folder)
        torch.manual_seed(5)
        with pytest.raises(KeyboardInterrupt):
            run(broken)
        torch.manual_seed(99)
        rest = Seen()
        resumed = make(rest, folder=folder)
        resumed.resume()
        assert rest.steps == seen.steps[at:]
        assert outcome(resumed) == outcome(whole)


def test_an_odd_number_of_groups_or_epochs() -> None:
    values = {"epochs": 2, "lr": 0.1, "bn": "auto", "schedule": "one_cycle"}
    assert [p.name for p in recipes.fine_tune(values, ["a", "b"], freeze_epochs=0)] == ["all"]
    assert recipes.geometric_lr_scales(["a", "b"]) == {"a": 0.01, "b": 1.0}
    assert [p.epochs for p in recipes.sgdr(values, cycles=3, cycle_mult=3)] == [2, 6, 18]
    for call, message in (
        (lambda: recipes.fine_tune(values, ["all"]), "fine_tune needs a model with several"),
        (lambda: recipes.gradual_unfreezing(values, []), "gradual_unfreeze needs a model"),
        (lambda: recipes.fine_tune(values, "ab", freeze_epochs=-1), "freeze_epochs must be"),
        (lambda: recipes.fine_tune(values, "ab", layer_decay=1.5), "at most 1, not 1.5"),
        (lambda: recipes.sgdr(values, cycles=0), "cycles must be a whole number, at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_what_a_verb_is_asked_becomes_the_plans() -> None:
    learner = make()
    learner.fine_tune(1, lr=0.03)
    assert (learner.plan["lr"].value, learner.plan["lr"].source) == (0.03, "user")
    assert learner.plan["epochs"].value == 1
