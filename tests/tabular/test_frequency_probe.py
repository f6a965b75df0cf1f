"""The frequency of periodic embeddings is measured on train rows, with the curve in the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flambeau import Learner, Plan, Predictor
from flambeau.errors import InputError, PlanError
from flambeau_tabular import TabularData, probe_frequency
from flambeau_tabular.models import PeriodicEmbedding

FAST: dict[str, Any] = {"batch_size": 64, "hidden": [32], "probe": "off"}


def waves(n: int = 1500, seed: int = 0) -> dict[str, Any]:
    """Return a class that changes twelve times over the range of a number."""
    x = np.random.default_rng(seed).uniform(0, 1, n)
    return {"x": x, "y": np.where(np.sin(12 * np.pi * x) > 0, "up", "down")}


def test_the_best_frequency_is_found_and_used(tmp_path: Path) -> None:
    data = TabularData.from_df(waves(), "y", valid=0.2, test=0.2)
    probe = probe_frequency(data, (0.01, 2.0), choices=FAST, epochs=6)
    scores = dict(probe.curve)
    assert probe.sigma == 2.0
    assert scores[0.01] > 0.6  # ln 2 = 0.69 is chance
    assert scores[2.0] < 0.5
    assert probe.column == "valid_refined_log_loss"
    learner = Learner(data, choices={**FAST, **probe.choices, "epochs": 2}, seed=0)
    assert learner.plan["plr_sigma"].value["curve"] == [list(point) for point in probe.curve]
    [embedding] = [each for each in learner.model.modules() if isinstance(each, PeriodicEmbedding)]
    assert float(embedding.frequencies.detach().std()) == pytest.approx(2.0, rel=0.3)
    saved = Plan.from_json(json.loads(json.dumps(learner.plan.to_json())))
    again = Learner(data, plan=saved, seed=0)
    for each in (learner, again):
        torch.manual_seed(0)
        each.fit()
    rows = {"x": np.linspace(0, 1, 20)}
    wanted = learner.predict(rows)
    assert again.predict(rows) == wanted
    assert Predictor.load(learner.export(tmp_path / "model")).predict(rows) == wanted


def test_only_train_rows_are_used() -> None:
    rows = waves(600)
    parts = ["train"] * 400 + ["valid"] * 100 + ["test"] * 100
    curves = []
    for seed in (1, 2):  # other valid and test rows
        other = waves(600, seed)
        mixed = {
            name: np.concatenate([cells[:400], other[name][400:]]) for name, cells in rows.items()
        }
        data = TabularData.from_df({**mixed, "part": parts}, "y", split="part")
        curves.append(probe_frequency(data, (0.5,), choices=FAST, epochs=1).curve)
    assert curves[0] == curves[1]


def test_the_plan_says_that_it_was_not_measured() -> None:
    data = TabularData.from_df(waves(200), "y")
    choice = Learner(data, choices={"number_embedding": "plr_lite"}).plan["plr_sigma"]
    assert (choice.value, choice.source) == (0.05, "default")
    assert "was not measured here: probe_frequency(data)" in choice.reason
    assert Learner(data).plan["plr_sigma"].value is None
    assert Learner(data).plan["ple_bins"].value == 48
    given = Learner(data, choices={"number_embedding": "plr", "plr_sigma": 3.0})
    modules = given.model.modules()
    [embedding] = [each for each in modules if isinstance(each, PeriodicEmbedding)]
    assert float(embedding.frequencies.detach().abs().max()) > 1.0


def test_bins_of_the_plan_are_those_of_the_model() -> None:
    data = TabularData.from_df(waves(800), "y")
    widths = {}
    for bins in (4, 48):
        model = Learner(data, choices={"ple_bins": bins, "hidden": [8]}).model
        widths[bins] = model.inputs.numbers.encoding.n_bins
    assert widths == {4: 4, 48: 48}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"plr_sigma": 0.5}, "None, because only periodic embeddings have frequencies"),
        ({"number_embedding": "plr", "plr_sigma": 0}, "a number above 0"),
        ({"number_embedding": "plr", "plr_sigma": {"sigma": 0.5}}, "a number above 0"),
        ({"number_embedding": "plr", "ple_bins": 4}, "only the embedding 'ple' has bins"),
        ({"ple_bins": 1000}, "a whole number of bins from 1 to 240"),
    ],
)
def test_values_without_effect_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Learner(TabularData.from_df(waves(100), "y"), choices=choices)


def test_the_probe_needs_frequencies() -> None:
    data = TabularData.from_df(waves(100), "y")
    with pytest.raises(InputError, match=r"embedding='ple' with sigmas=\[0.05, 0.5, 5.0\] cannot"):
        probe_frequency(data, embedding="ple")
