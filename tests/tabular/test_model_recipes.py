"""Recipes: known to the plan, to the builders and to training; RealMLP's values step by step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from flambeau import Callback, Learner, TensorData
from flambeau.errors import ArgumentError
from flambeau.phases.recipes import single_phase
from flambeau.plan import CORE_RULES
from flambeau_tabular import TabularData
from flambeau_tabular.models import MODELS, recipe
from flambeau_tabular.models.recipes import RECIPES

KINDS = ("classification", "multi_label", "regression")


def test_every_model_has_a_recipe() -> None:
    assert RECIPES.keys() == MODELS.keys()
    with pytest.raises(ArgumentError, match=r"no recipe for 'tabn'.*'tabm'"):
        recipe("tabn")


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_choices_are_valid_values_of_the_plan(name: str, device: str) -> None:
    types = {rule.key: rule.type for rule in CORE_RULES}
    for kind in KINDS:
        found = recipe(name, kind=kind, device=device)
        assert found.source
        for key, value in found.choices().items():
            assert types[key] is None or types[key].fault(value) is None, (key, value)
        values = {**found.choices(), "bn": "train"}
        assert set(single_phase(values)[0].schedules) == {"lr", *found.schedules}


@pytest.mark.parametrize("name", ["mlp", "tabm"])
def test_builders_take_the_arguments(name: str) -> None:
    found = recipe(name, kind="classification")
    columns: dict[str, Any] = {"n_numbers": 1, "ple_edges": [[0.0, 1.0]], **found.inputs}
    assert MODELS[name](inputs=columns, n_outputs=2, kind="classification", **found.model)


def test_tabm_is_smaller_on_a_cpu() -> None:
    assert recipe("tabm", device="cpu").model["k"] == 16
    assert recipe("tabm", device="cuda").model["k"] == 32


def test_label_smoothing_is_for_classes_only() -> None:
    smoothing = {kind: recipe("mlp", kind=kind).label_smoothing for kind in KINDS}
    assert smoothing == {"classification": 0.1, "multi_label": 0.0, "regression": 0.0}


class Seen(Callback):
    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_gradients_ready(self, state: Any) -> None:
        names = {id(p): name for name, p in state.model.named_parameters()}
        groups = state.optimizers["main"].param_groups
        found = {names[id(p)]: group for group in groups for p in group["params"]}
        self.steps.append(
            {
                "weights": found["body.0.weight"]["lr"],
                "scale": found["scale.weight"]["lr"],
                "bias": found["body.0.bias"]["lr"],
                "decay": found["body.0.weight"]["weight_decay"],
                "decay of bias": found["body.0.bias"]["weight_decay"],
                "dropout": state.model.body[2].p,
                "beta2": found["body.0.weight"]["betas"][1],
            }
        )


def test_a_fit_with_the_recipe_of_the_mlp_has_its_values_at_each_step() -> None:
    draws = torch.Generator().manual_seed(0)
    numbers, flags = torch.randn(28, 2, generator=draws), torch.zeros(28, 1)
    flags[::2] = 1
    codes = torch.randint(0, 4, (28, 1), generator=draws)
    data = TensorData.from_tensors(
        {"numbers": numbers, "flags": flags, "categories": codes},
        (numbers[:, 0] > 0).long(),
        valid=8,
    )
    torch.manual_seed(0)
    found, seen = recipe("mlp", kind="classification"), Seen()
    columns = {"n_numbers": 2, "n_flags": 1, "cardinalities": [4], **found.inputs}
    model = MODELS["mlp"](
        inputs={**columns, "ple_edges": [[-1.0, 0.0, 1.0]] * 2},
        n_outputs=2,
        kind="classification",
        **{**found.model, "hidden": [8]},
    )
    choices = {**found.choices(), "batch_size": 20, "epochs": 9, "normalisation": "none"}
    Learner(data, model, choices={**choices, "probe": "off"}, callbacks=[seen], quiet=True).fit()
    assert len(seen.steps) == 9
    for i, step in enumerate(seen.steps):
        t = i / 8
        rate = 0.04 * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * t))) / 2
        if i == 0:
            rate = 0.04 * 0.04  # a first step at rate 0 would have no effect
        flat_cos = 1.0 if t < 0.5 else (1 + math.cos(math.pi * (t - 0.5) / 0.5)) / 2
        expected = {
            "weights": rate,
            "scale": 6 * rate,
            "bias": 0.1 * rate,
            "decay": 0.02 * flat_cos,
            "decay of bias": 0.0,
            "dropout": 0.15 * flat_cos,
            "beta2": 0.95,
        }
        assert step == pytest.approx(expected, abs=1e-5), i
    assert model.body[2].p == 0.15


def test_the_plan_has_clipping_and_patience_of_the_recipe() -> None:
    rows = {"x": [1.5 * i for i in range(40)], "y": ["a", "b"] * 20}
    data = TabularData.from_df(rows, "y")
    for name, clip_norm, patience in (("mlp", None, None), ("tabm", 1.0, 16)):
        plan = Learner(data, name).plan
        assert (plan["clip_norm"].value, plan["patience"].value) == (clip_norm, patience)
    assert "recipe of tabm" in plan["clip_norm"].reason
    # Without validation rows nothing can tell when to stop.
    all_train = TabularData.from_df(rows, "y", valid=0)
    assert Learner(all_train, "tabm").plan["patience"].value is None


def test_without_dropout_nothing_schedules_it() -> None:
    table = {"x": [float(row) for row in range(40)], "y": ["a", "b"] * 20}
    learner = Learner(
        TabularData.from_df(table, "y"), quiet=True, choices={"head": {"dropout": 0.0}}
    )
    assert set(learner.plan.values["schedules"]) == {"weight_decay"}
    learner.fit(steps=2)
