"""The stages of a fit, each called alone, and the one place where the plan is assigned."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import EMA, Learner, Phase, Plan, Schedule, TensorData, TrainingOptions
from flambeau.errors import FlambeauWarning, PlanError
from flambeau.learner import fitting, learner
from flambeau.learner.setup import Request, Setup
from flambeau.phases import recipes
from flambeau.training.run import Run

FITTING = Path(fitting.__file__)


def made(**more: Any) -> Learner:
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    data = TensorData.from_tensors(x, (x[:, 0] > 0).long())
    return Learner(data, net, quiet=True, **{"choices": {"batch_size": 8, "lr": 1e-2}, **more})


def one_phase(values: Mapping[str, Any]) -> list[Phase]:
    return recipes.single_phase(values)


def setup_of(one: Learner) -> Setup:
    return one._setup()


def test_decide_takes_the_values_of_the_verb_as_the_users() -> None:
    plan = made().plan
    decided = fitting.decide(plan, {"epochs": 7})
    assert (decided["epochs"].value, decided["epochs"].source) == (7, "user")
    assert plan["epochs"].value != 7, "the plan is a value"
    assert fitting.decide(plan, {"lr": 1e-2}) == plan, "nothing changes"
    with pytest.raises(PlanError, match="epochs is 0"):
        fitting.decide(plan, {"epochs": 0})


def test_measure_closes_what_the_plan_leaves_open() -> None:
    one = made()
    weights = [value.clone() for value in one.model.state_dict().values()]
    plan, phases = fitting.measure(setup_of(one), one.plan, Request(one_phase))
    assert plan["probe"].value == "skipped"
    assert plan["bn"].value == "train"
    assert "no running statistics yet" in plan["bn"].reason
    assert [phase.epochs for phase in phases] == [plan["epochs"].value]
    again, _ = fitting.measure(setup_of(one), plan, Request(one_phase))
    assert again == plan, "a replay measures nothing"
    assert one.plan["probe"].value == "auto", "the learner's plan is its own"
    for before, after in zip(weights, one.model.state_dict().values(), strict=True):
        assert torch.equal(before, after)


def test_build_makes_a_run_that_has_computed_nothing() -> None:
    one = made(training=TrainingOptions(average=EMA(0.9)))
    plan = one.plan.override("lr", 0.5).override("bn", "eval")
    run = fitting.build(setup_of(one), plan, one_phase(plan.values))
    assert isinstance(run, Run)
    assert run.state.position.step == 0
    assert run.optimizers["main"].param_groups[0]["lr"] == 0.5
    assert run.components.values["lr"] == 0.5
    assert {phase.bn for phase in run.state.phases} == {"eval"}
    assert run.settings.plan() == plan.to_json()


def test_examine_warns_once_the_learner_asks_for_it() -> None:
    x = torch.randn(120, 4)
    data = TensorData.from_tensors(x, (x[:, 0] > 0).long())
    softmax = nn.Sequential(nn.Linear(4, 2), nn.Softmax(1))
    one = Learner(data, softmax, quiet=True)
    run = fitting.build(setup_of(one), one.plan, one_phase(one.plan.values))
    with pytest.warns(FlambeauWarning, match="softmax"):
        fitting.examine(setup_of(one), one.plan, run)


def test_train_runs_every_phase_and_record_returns_the_plan() -> None:
    one = made()
    phases = [Phase(1, {"lr": Schedule("constant", 1e-2)}), Phase(2)]
    run = fitting.build(setup_of(one), one.plan, phases)
    before = one.model[0].weight.detach().clone()
    fitting.train(setup_of(one), one.plan, run)
    assert [row["epoch"] for row in one.history.rows] == [1, 2, 3]
    assert not torch.equal(one.model[0].weight, before)
    assert fitting.record(one.plan, run, None) is one.plan


def test_a_fit_is_its_stages() -> None:
    one, other = made(), made()
    history = one.fit(2)
    setup = setup_of(other)
    plan = fitting.decide(other.plan, {"epochs": 2})
    plan, phases = fitting.measure(setup, plan, Request(one_phase))
    run = fitting.build(setup, plan, phases)
    fitting.train(setup, plan, run)
    assert history.step_losses == other.history.step_losses
    assert plan == one.plan


def test_an_interrupted_fit_keeps_its_plan() -> None:
    def fail(*arguments: object) -> Any:
        raise RuntimeError("out")

    one = made(training=TrainingOptions(train_step=fail))
    with pytest.raises(RuntimeError, match="out"):
        one.fit(5)
    assert one.plan["epochs"].value == 5
    assert isinstance(one.plan, Plan)


def test_the_plan_is_assigned_in_one_place_and_measured_in_one() -> None:
    assigned = [
        node
        for node in ast.walk(ast.parse(Path(learner.__file__).read_text()))
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute) and target.attr in ("plan", "_plan")
    ]
    assert len(assigned) == 1
    sources = Path(learner.__file__).parents[1].rglob("*.py")
    entries = [
        path.name for path in sources if "from flambeau.tuning.measure import" in path.read_text()
    ]
    assert entries == ["fitting.py"]


def test_fitting_stays_short() -> None:
    assert len(FITTING.read_text().splitlines()) <= 250
