"""Folds of tables: groups and times are obeyed, and each fold is encoded from its train rows."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from flambeau import Learner
from flambeau.errors import ArgumentError, ResumeError, SplitError
from flambeau_tabular import TabularData, TabularOptions

N = 120


def frame(**more: Any) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    columns = {
        "age": draws.normal(40, 10, N),
        "job": draws.choice(["clerk", "nurse", "pilot"], N),
        "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(draws.permutation(N), unit="D"),
        "person": draws.integers(0, 30, N),
        "y": draws.choice(["low", "high"], N),
        **more,
    }
    return pd.DataFrame(columns, index=[f"row {at}" for at in range(N)])


def test_a_group_is_in_one_fold() -> None:
    table = frame()
    folds = TabularData.from_df(table, "y", group="person", valid=0.2, test=0.2).folds(4)
    held_out = [set(table["person"].iloc[each.split.valid]) for each in folds]
    for each, own in zip(folds, held_out, strict=True):
        assert not own & set(table["person"].iloc[each.split.train])
    assert len(set.union(*held_out)) == sum(map(len, held_out))


def test_folds_go_forward_in_time_with_the_embargo_of_the_data() -> None:
    table = frame()
    options = TabularOptions(embargo=timedelta(days=5))
    data = TabularData.from_df(table, "y", time="day", valid=0.2, test=0.2, options=options)
    days = table["day"].to_numpy()
    last_test = days[data.split.test].min()
    for each in data.folds(3):
        first = days[each.split.valid].min()
        assert first - days[each.split.train].max() >= np.timedelta64(5, "D")
        assert days[each.split.valid].max() < last_test
        assert "forward in time" in each.split.method


def test_groups_in_several_times_are_refused() -> None:
    table = frame()
    with pytest.raises(SplitError, match="groups are in both train and valid"):
        # The constructor refuses such a split, too; given rows show what folds() does.
        data = TabularData.from_df(table, "y", time="day", valid=0)
        structure = TabularData.from_df(table, "y", group="person", valid=0.2).structure
        object.__setattr__(data.structure, "groups", structure.groups)
        data.folds(3)


def test_kinds_and_vocabulary_of_a_fold_are_those_of_its_train_rows() -> None:
    only = ["rare" if at == 7 else "clerk" for at in range(N)]
    data = TabularData.from_df(frame(job=only), "y", valid=0.2)
    values = {"task": "classification", "scaling": "standard", "min_count": 1}
    for each in data.folds(4):
        known = "rare" in str(each.preprocessor(values).arguments())
        assert known == (7 in each.split.train)
        # "clerk" alone is a constant column, which is not used.
        assert each.columns["job"].kind == ("category" if known else "constant")


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.assign(age=table["age"] * 1000),
        lambda table: table.assign(job=table["job"].replace({"clerk": "nurse", "nurse": "clerk"})),
        lambda table: table.assign(age=table["age"].where(table["age"] > 30)),
    ],
)
def test_resumed_folds_of_another_table_are_refused(tmp_path: Path, change: Any) -> None:
    def fit(table: Any, **more: Any) -> None:
        data = TabularData.from_df(table, "y", valid=0.2)
        choices = {"keep_best": None, "probe": "off"}
        Learner(data, choices=choices, folder=tmp_path, quiet=True).fit_folds(2, epochs=1, **more)

    table = frame().drop(columns=["person", "day"])
    fit(table)
    with pytest.raises(ArgumentError, match=r"with other folds: cells differs \('digest "):
        fit(change(table), resume=True)
    fit(table.astype({"job": "category"}), resume=True)
    fit(pa.Table.from_pandas(table, preserve_index=False), resume=True)


def test_a_run_of_another_table_is_not_resumed(tmp_path: Path) -> None:
    def learner(table: Any) -> Learner:
        data = TabularData.from_df(table, "y", valid=0.2)
        return Learner(data, choices={"probe": "off"}, folder=tmp_path, quiet=True)

    table = frame().drop(columns=["person", "day"])
    learner(table).fit(1)
    swapped = table["job"].replace({"clerk": "nurse", "nurse": "clerk"})
    with pytest.raises(ResumeError, match="cells"):
        learner(table.assign(job=swapped)).resume()
