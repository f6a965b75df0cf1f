"""``fit_folds`` on tables: equal to separate fits, and predictions on the index of the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from flambeau import Learner, TrainingOptions
from flambeau.errors import ArgumentError
from flambeau_tabular import TabularData
from flambeau_tabular.explain import explain

N = 203  # folds of unequal sizes


def frame() -> pd.DataFrame:
    draws = np.random.default_rng(0)
    age = draws.normal(40, 12, N)
    town = draws.choice([f"town {at}" for at in range(60)], N)  # some are in one fold only
    job = draws.choice(["clerk", "nurse", "pilot"], N)
    columns = {"age": age, "town": town, "job": job}
    columns["pay"] = 900 * age + 20_000 * (job == "pilot") + draws.normal(0, 5_000, N)
    columns["high"] = np.where(columns["pay"] > 45_000, "yes", "no")
    return pd.DataFrame(columns, index=[f"row {at}" for at in range(N)])


def data(target: str) -> TabularData:
    dropped = "pay" if target == "high" else "high"
    return TabularData.from_df(frame().drop(columns=dropped), target, valid=0.2, test=0.1)


@pytest.mark.parametrize("target", ["high", "pay"])
def test_models_equal_separate_fits_of_50_steps_in_float64(target: str) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        choices = {
            "batch_size": 32,
            "head": {"dropout": 0.0},
            "keep_best": None,
            "hidden": [16, 16],
        }
        whole = Learner(data(target), choices=choices, quiet=True)
        found = whole.fit_folds(4, seeds=2, steps=50)
        members = iter(found.members)
        sizes, vocabularies = set(), set()
        for fold in data(target).folds(4):
            for seed in (0, 1):
                separate = Learner(fold, plan=whole.plan, seed=seed, quiet=True)
                with torch.random.fork_rng():
                    torch.manual_seed(seed)  # categories become unknown ones at random
                    separate.fit(steps=50)
                member, state = next(members), separate.model.state_dict()
                assert member.model.state_dict().keys() == state.keys()
                for name, value in member.model.state_dict().items():
                    assert value.dtype == torch.float64 or not value.is_floating_point()
                    assert torch.allclose(value, state[name], rtol=0, atol=1e-9), name
                expected = separate.evaluate("valid")
                assert member.scores == pytest.approx(expected, abs=1e-9)
                spec = separate.built.preprocessor
                assert member.preprocessor.vocabulary_digest() == spec.vocabulary_digest()
                sizes.add((len(fold.split.train), len(fold.split.valid)))
                vocabularies.add(spec.vocabulary_digest())
        assert len(sizes) > 1
        assert len(vocabularies) == 4
    finally:
        torch.set_default_dtype(before)


def test_nothing_of_a_fold_is_measured_on_its_valid_rows() -> None:
    table = frame()
    used = data("pay").folds(4)[0].split
    changed = table.copy()
    changed.iloc[used.valid, 0] = -1e6
    changed.iloc[used.valid, 1] = "elsewhere"
    options = {"target": "pay", "valid": 0.2, "test": 0.1}
    choices = {"batch_size": 32, "keep_best": None}
    models = []
    for each in (table, changed):
        one = TabularData.from_df(each.drop(columns="high"), **options)
        result = Learner(one, choices=choices, quiet=True).fit_folds([used], steps=5)
        models.append((result.members[0].preprocessor.vocabulary_digest(), result.members[0].model))
    (digest, model), (other_digest, other) = models
    assert digest == other_digest
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("target", ["high", "pay"])
def test_held_out_predictions_have_the_index_of_their_rows(target: str) -> None:
    whole = data(target)
    found = Learner(whole, choices={"keep_best": None}, quiet=True).fit_folds(3, epochs=2)
    rows = np.sort(np.concatenate([whole.split.train, whole.split.valid]))
    predictions = found.predictions
    assert isinstance(predictions, pd.DataFrame)
    assert list(predictions.index) == [f"row {at}" for at in rows]
    column = predictions["yes" if target == "high" else "pay"]
    expected = found.held_out.outputs[:, -1].numpy()
    assert np.allclose(column, expected, rtol=1e-12)
    assert found.held_out.rows.tolist() == rows.tolist()


def test_held_out_rows_have_a_report_without_models_that_were_fitted_on_them(
    tmp_path: Path,
) -> None:
    table = frame().drop(columns="high").assign(person=[f"p {at // 4}" for at in range(N)])
    whole = TabularData.from_df(table, "pay", group="person", valid=0.2, test=0.1)
    found = Learner(whole, choices={"keep_best": None}, quiet=True).fit_folds(3, epochs=1)
    every = found.interpretation
    assert set(every.baselines) == {"mean of these samples"}
    assert every.groups is not None
    # The intervals resample whole groups: 50 of them, not 183 rows.
    assert len(every.groups.unique()) < 60
    page = found.interpretation.report(tmp_path / "folds.html").read_text()
    assert "out-of-fold" in page
    assert "Not examined: The predictions are not those of one model" in page


def test_intervals_count_a_group_as_one_sample() -> None:
    table = frame().drop(columns="high").assign(person=[f"p {at // 4}" for at in range(N)])
    whole = TabularData.from_df(table, "pay", group="person", valid=0.2)
    found = Learner(whole, choices={"keep_best": None}, quiet=True).fit_folds(3, epochs=1)
    [scores] = found.ensemble().task.calibration["intervals"].values()
    groups = table["person"].to_numpy()[found.held_out.rows.numpy()]
    assert sum(each["total"] for each in scores) == pytest.approx(len(set(groups)))


def test_the_ensemble_of_folds_in_time_has_the_models_of_the_last_one() -> None:
    table = frame().drop(columns="high")
    table["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(range(N), unit="D")
    whole = TabularData.from_df(table, "pay", time="day", valid=0.2, test=0.1)
    found = Learner(whole, choices={"keep_best": None}, quiet=True).fit_folds(3, 2, epochs=1)
    assert list(found.ensemble().task.tasks) == ["fold 3, seed 0", "fold 3, seed 1"]
    assert len(found.ensemble([1, 2, 3]).task.tasks) == 6
    assert "never held out: the folds go forward in time" in found.notes[0]
    last = found.held_out.rows[found.held_out.folds == 3]
    assert int(last.max()) < int(whole.split.test.min())


def test_an_ensemble_is_not_explained_as_one_model() -> None:
    found = Learner(data("pay"), choices={"keep_best": None}, quiet=True).fit_folds(2, epochs=1)
    with pytest.raises(ArgumentError, match="this is an ensemble"):
        explain(found.ensemble(), frame().head(1), frame())


def test_held_out_rows_have_the_numbers_of_the_users_table() -> None:
    draws = np.random.default_rng(0)
    table = pd.DataFrame({"x": draws.normal(size=90), "z": draws.normal(size=90)})
    table["y"] = 100 * table["x"]
    table.loc[::4, "y"] = np.nan
    data = TabularData.from_df(table, "y")
    choices = {"epochs": 30, "hidden": [16], "number_embedding": "none", "probe": "off"}
    training = TrainingOptions(doctor=False)
    found = Learner(data, choices=choices, training=training, quiet=True).fit_folds(3)
    assert sorted(found.columns["row"].tolist()) == table.index[table["y"].notna()].tolist()
    own = table["y"].to_numpy()[found.columns["row"]]
    assert np.corrcoef(own, found.columns["y"])[0, 1] > 0.9
    assert found.predictions.index.tolist() == found.columns["row"].tolist()
