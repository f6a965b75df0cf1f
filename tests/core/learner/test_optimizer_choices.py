"""Settings of the optimizer as choices of the plan, and controllers that change them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from flambeau import Callback, Learner, ReduceOnPlateau, Schedule, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, PlanError
from flambeau.plan import Plan

X = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))


class Settings(Callback):
    def __init__(self) -> None:
        self.seen: list[list[dict[str, Any]]] = []

    def on_step_end(self, state: Any) -> None:
        groups = state.optimizers["main"].param_groups
        self.seen.append([{k: v for k, v in g.items() if k != "params"} for g in groups])


def learner(seen: Settings, factory: Any = None, controllers: Any = (), **choices: Any) -> Learner:
    torch.manual_seed(0)
    return Learner(
        TensorData.from_tensors(X, X.sum(1), valid=8),
        nn.Linear(3, 1),
        choices={"device": "cpu", "bn": "train", "probe": "off", "lr": 0.01, **choices},
        training=TrainingOptions(optimizer=factory, controllers=controllers, doctor=False),
        callbacks=[seen],
        quiet=True,
    )


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (
            {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
            {"momentum": 0.9, "nesterov": True},
        ),
        ({"betas": (0.8, 0.9), "eps": 1e-5}, {"betas": (0.8, 0.9), "eps": 1e-5}),
        ({"optimizer": "rmsprop", "alpha": 0.9, "momentum": 0.5}, {"alpha": 0.9, "momentum": 0.5}),
        ({"optimizer": "adagrad", "eps": 1e-5}, {"eps": 1e-5}),
        ({"momentum": None}, {"betas": (0.9, 0.999)}),
    ],
)
def test_a_setting_of_torch_is_a_choice(choices: Any, expected: Any) -> None:
    seen = Settings()
    one = learner(seen, **choices)
    one.fit(1)
    for group in seen.seen[-1]:
        assert {key: group[key] for key in expected} == expected
    again = Plan.from_json(one.plan.to_json())
    assert all(again[key].value == one.plan[key].value for key in choices)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"momentum": 0.9}, "'adamw' has no momentum. Optimizers that have it: muon, rmsprop"),
        ({"optimizer": "sgd", "betas": (0.9, 0.9)}, "'sgd' has no betas"),
        ({"optimizer": "sgd", "nesterov": True}, "False without momentum"),
        ({"betas": 0.9}, "two numbers from 0 to below 1"),
        ({"betas": (0.9, 1.0)}, "two numbers from 0 to below 1"),
        ({"optimizer": "sgd", "momentum": -0.5}, "a number from 0 to below 1"),
        ({"eps": 0}, "a finite number above 0"),
    ],
)
def test_a_setting_without_effect_or_out_of_range_is_refused(choices: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        learner(Settings(), **choices)


def test_a_class_gets_the_settings_and_a_factory_must_read_them() -> None:
    seen = Settings()
    learner(seen, partial(SGD, dampening=0.0), momentum=0.8).fit(1)
    assert seen.seen[-1][0]["momentum"] == 0.8

    def factory(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        return {"main": SGD(model.parameters(), values["lr"])}

    for key, value in (("momentum", 0.8), ("weight_decay", 0.1)):
        with pytest.raises(ArgumentError, match=f"{key} is {value} in choices, but the optimizer"):
            learner(Settings(), factory, **{key: value}).fit(1)


@pytest.mark.parametrize(
    ("name", "choices", "first"),
    [
        ("weight_decay", {"weight_decay": 0.2}, 0.2),
        ("momentum", {"optimizer": "sgd", "momentum": 0.8}, 0.8),
        ("momentum", {}, 0.9),
    ],
)
def test_a_plateau_reduces_a_setting_of_the_optimizer(
    name: str, choices: Any, first: float
) -> None:
    seen = Settings()
    plateau = ReduceOnPlateau("epoch", 0.5, patience=0, name=name, mode="min")
    one = learner(seen, controllers=(plateau,), **choices)
    one.fit(3, schedule="constant")
    assert one.history.column(name) == pytest.approx([first, first, first / 2])
    last = seen.seen[-1][0]
    used = last[name] if name in last else last["betas"][0]
    assert used == pytest.approx(first / 2)


def test_a_plateau_on_a_setting_that_the_optimizer_lacks_is_refused() -> None:
    plateau = ReduceOnPlateau(name="momentum")
    with pytest.raises(ArgumentError, match="optimizer Adagrad has no momentum"):
        learner(Settings(), controllers=(plateau,), factory=torch.optim.Adagrad).fit(1)


def test_a_schedule_of_weight_decay_keeps_user_groups_without_it() -> None:
    def factory(model: Any, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        groups = [
            {"params": [model.weight], "weight_decay": 0.3},
            {"params": [model.bias], "weight_decay": 0.0},
        ]
        return {"main": AdamW(groups, lr=values["lr"])}

    seen = Settings()
    learner(seen, factory).fit(1, schedules={"weight_decay": Schedule("constant", 0.1)})
    assert [group["weight_decay"] for group in seen.seen[-1]] == [0.1, 0.0]


def test_a_partial_with_parameters_is_refused() -> None:
    other = nn.Linear(3, 1)
    for factory in (partial(AdamW, other.parameters()), partial(AdamW, params=other.parameters())):
        with pytest.raises(ArgumentError, match="partial of AdamW with parameters"):
            learner(Settings(), factory).fit(1)
    with pytest.raises(PlanError, match="Did you mean 'adamw'"):
        learner(Settings(), optimizer="AdamW")


def test_lr_find_measures_an_optimizer_with_a_closure() -> None:
    factory = partial(torch.optim.LBFGS, max_iter=2)
    found = learner(Settings(), factory, weight_decay=0.0, batch_size=8).lr_find()
    assert found.sweep is not None
    assert len(found.sweep.losses) > 2
