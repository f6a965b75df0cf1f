"""The plan's key "schedules": schedules of other values than the learning rate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Callback, Learner, Schedule, TensorData
from flambeau.errors import PlanError
from flambeau.phases import recipes

HALF = {"shape": "flat_cos", "options": {"pct_start": 0.5}}


class Seen(Callback):
    def __init__(self) -> None:
        self.decays: list[float] = []
        self.dropouts: list[float] = []

    def on_gradients_ready(self, state: Any) -> None:
        groups = state.optimizers["main"].param_groups
        self.decays.append(max(group["weight_decay"] for group in groups))
        self.dropouts.append(state.model[2].p)


def learner(seen: Seen, **choices: Any) -> Learner:
    torch.manual_seed(0)
    x = torch.randn(52, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
    return Learner(
        TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=12),
        model,
        choices={"batch_size": 8, "probe": "off", "epochs": 1, "lr": 1e-3, **choices},
        callbacks=[seen],
        quiet=True,
    )


def flat_then_cosine(peak: float) -> list[float]:
    """Five steps: the progress is 0, 1/4, 1/2, 3/4 and 1."""
    return [peak * factor for factor in (1, 1, 1, (1 + math.cos(math.pi / 2)) / 2, 0)]


def test_the_peak_is_the_plans_value() -> None:
    seen = Seen()
    chosen = {"weight_decay": HALF, "dropout_factor": HALF}
    learner(seen, weight_decay=0.4, schedules=chosen).fit()
    assert seen.decays == pytest.approx(flat_then_cosine(0.4), abs=1e-5)
    assert seen.dropouts == pytest.approx(flat_then_cosine(0.2), abs=1e-5)


def test_a_peak_of_its_own_and_the_argument_of_fit_take_precedence() -> None:
    seen = Seen()
    trained = learner(seen, weight_decay=0.4, schedules={"weight_decay": {**HALF, "peak": 0.1}})
    trained.fit()
    assert seen.decays == pytest.approx(flat_then_cosine(0.1), abs=1e-5)
    seen.decays.clear()
    trained.fit(schedules={"weight_decay": Schedule("constant", 0.7)})
    assert seen.decays == [0.7] * 5


def test_a_saved_plan_repeats_the_schedules(tmp_path: Path) -> None:
    first, again = Seen(), Seen()
    trained = learner(first, schedules={"weight_decay": HALF})
    trained.fit()
    plan = tmp_path / "plan.json"
    trained.plan.save(plan)
    repeated = learner(again)
    Learner(repeated.data, repeated.model, plan=plan, callbacks=[again], quiet=True).fit()
    assert again.decays == first.decays


def test_without_the_key_there_are_none() -> None:
    """Plans of earlier releases do not have it."""
    values = {"epochs": 2, "lr": 0.1, "schedule": "constant", "bn": "train"}
    [phase] = recipes.single_phase(values)
    assert list(phase.schedules) == ["lr"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("flat_cos", "it must be schedules by the name of the value"),
        ({"weight_decay": "flat_cos"}, "it must be schedules by the name of the value"),
        ({"weight_decay": {"shape": "linear", "start": 2}}, "it must be schedules by the name"),
        ({"lr": HALF}, 'whose shape is the plan\'s "schedule"'),
        ({"weight_decay": {"shape": "flat"}}, "that of 'weight_decay' is not.*'flat_cos'"),
        ({"weight_decay": {"shape": "linear", "peak": "high"}}, "that of 'weight_decay' is not"),
        ({"weight_decay": {"shape": "linear", "options": 3}}, "that of 'weight_decay' is not"),
    ],
)
def test_invalid_values_are_refused(value: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        learner(Seen(), schedules=value)


def test_compile_is_not_tried_while_dropout_changes() -> None:
    from flambeau.tuning.step_settings import alternatives_of

    fixed = learner(Seen())
    changing = learner(Seen(), schedules={"dropout_factor": HALF})
    found = [
        alternatives_of(each.plan, each.model, torch.device("cpu")) for each in (fixed, changing)
    ]
    assert ["compile" in each for each in found] == [True, False]
