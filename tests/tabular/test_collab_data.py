"""``CollabData``: columns, parts, repeated pairs, codes by value, the plan, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from flambeau import Learner, Split
from flambeau.errors import ArgumentError, ArtefactError, InputError, PlanError, SplitError
from flambeau_tabular import CollabData, CollabOptions, TabularData, TabularOptions

COLUMNS: dict[str, Any] = {"user": "u", "item": "i", "rating": "r"}
VALUES = {"targets": "standard", "min_count": 1, "architecture": "collab_dot"}


def table(n: int = 60, seed: int = 0) -> dict[str, Any]:
    draws = np.random.default_rng(seed)
    pairs = draws.permutation(10 * 12)[:n]
    return {
        "u": pairs // 12,
        "i": pairs % 12,
        "r": draws.integers(1, 6, n).astype(float),
        "t": draws.permutation(n),
    }


def pairs_in(data: CollabData, part: str) -> list[tuple[Any, Any]]:
    frame = data.interactions.frame.take(data.split.part(part))
    columns = (data.columns.user, data.columns.item)
    return list(zip(*(frame.column(name).to_pylist() for name in columns), strict=True))


# ---------------------------------------------------------------- reading


def test_every_kind_of_table_gives_the_same_data(tmp_path: Path) -> None:
    frame = pd.DataFrame(table())
    before = frame.copy()
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    pq.write_table(pa.table(table()), tmp_path / "ratings.parquet")
    found = [
        *(CollabData.from_df(each, **COLUMNS) for each in (table(), frame, pl.DataFrame(table()))),
        CollabData.from_csv(tmp_path / "ratings.csv", **COLUMNS),
        CollabData.from_parquet(tmp_path / "ratings.parquet", **COLUMNS),
        # As narrow integers, text and categories: compared by value.
        CollabData.from_df(frame.assign(u=frame["u"].astype("int8")), **COLUMNS),
        CollabData.from_df(frame.assign(u=frame["u"].astype(str).astype("category")), **COLUMNS),
        CollabData.from_df(frame.assign(u=frame["u"].astype(float)), **COLUMNS),
    ]
    digests = {data.preprocessor(VALUES).vocabulary_digest() for data in found}
    assert len(digests) == 1
    datasets = [data.dataset("valid", data.preprocessor(VALUES), VALUES) for data in found]
    for each in datasets[1:]:
        assert torch.equal(each.inputs["users"], datasets[0].inputs["users"])
        assert torch.equal(each.targets["target"], datasets[0].targets["target"])
    pd.testing.assert_frame_equal(frame, before)


def test_codes_are_those_of_the_sorted_train_values() -> None:
    data = CollabData.from_df(table(), **COLUMNS)
    fitted, rows = data.preprocessor(VALUES), table()
    dataset = data.dataset("valid", fitted, VALUES)
    train = data.split.train
    for name, column in (("users", "u"), ("items", "i")):
        known = sorted(map(str, set(rows[column][train])))
        code = {value: at for at, value in enumerate(known, start=2)}
        wanted = [code.get(str(value), 1) for value in rows[column][data.split.valid]]
        assert dataset.inputs[name].tolist() == wanted
    assert dataset.targets["target"].tolist() == rows["r"][data.split.valid].tolist()
    assert dataset.ids.tolist() == data.split.valid.tolist()


def test_nothing_is_measured_on_valid_rows() -> None:
    data = CollabData.from_df(table(), **COLUMNS)
    fewer = data.subset({"train": data.split.train, "valid": data.split.valid[:3]})
    facts, other = data.facts(), fewer.facts()
    for name in ("n_users", "n_items", "target_mean", "target_min", "target_max"):
        assert facts[name] == other[name]
    digests = {each.preprocessor(VALUES).vocabulary_digest() for each in (data, fewer)}
    assert len(digests) == 1


def test_rows_without_a_rating_are_left_out_and_counted() -> None:
    rows = table()
    rows["r"][[7, 9]] = np.nan
    data = CollabData.from_df(rows, **COLUMNS)
    assert len(data.interactions) == 58
    assert "2 rows without a rating are left out (the first is row 7)" in data.report()


def test_repeated_pairs_are_kept_once_or_as_the_user_says() -> None:
    rows = {"u": [1, 1, 1, 2, 2], "i": ["a", "b", "a", "a", "b"], "t": [5, 1, 3, 1, 2]}
    rated = {**rows, "r": [1.0, 2, 3, 4, 5]}
    names = {"user": "u", "item": "i"}

    def ratings(**more: Any) -> list[float]:
        data = CollabData.from_df(rated, **COLUMNS, valid=0, **more)
        return data.interactions.ratings.tolist()

    assert ratings() == [2, 3, 4, 5]  # the last one
    assert ratings(time="t") == [1, 2, 4, 5]  # the latest one
    assert ratings(options=CollabOptions(repeats="first")) == [1, 2, 4, 5]
    assert ratings(options=CollabOptions(repeats="all")) == [1, 2, 3, 4, 5]
    data = CollabData.from_df(rows, **names, valid=0)
    assert pairs_in(data, "train") == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]
    assert "1 rows repeat a user and an item (such as row 2): the first is kept" in data.report()
    rated["r"][0] = np.nan  # row 2 is then the only one of its pair
    assert "repeat" not in CollabData.from_df(rated, **COLUMNS, valid=0).report()


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize("until", ["valid", "test"])
def test_the_last_rows_of_each_user_equal_those_of_a_slow_loop(until: Any) -> None:
    rows = table(40)
    options = CollabOptions(leave_last=until)
    data = CollabData.from_df(rows, **COLUMNS, time="t", options=options)
    parts = ("valid",) if until == "valid" else ("test", "valid")
    wanted: dict[str, list[tuple[int, int]]] = {part: [] for part in ("train", "valid", "test")}
    for user in set(rows["u"]):
        own = sorted(np.flatnonzero(rows["u"] == user), key=lambda row: rows["t"][row])
        found = [(int(rows["u"][row]), int(rows["i"][row])) for row in own]
        if len(found) > len(parts):
            for part in parts:
                wanted[part].append(found.pop())
        wanted["train"] += found
    for part, expected in wanted.items():
        assert sorted(pairs_in(data, part)) == sorted(expected)
    assert "the last rows of each user" in data.split.describe()


def test_without_times_the_last_rows_are_those_of_the_table() -> None:
    rows = {"u": ["a", "b", "a", "c"], "i": [1, 2, 3, 4]}
    options = CollabOptions(leave_last="valid")
    data = CollabData.from_df(rows, user="u", item="i", options=options)
    assert (pairs_in(data, "valid"), len(data.split.train)) == ([("a", 3)], 3)
    with pytest.raises(SplitError, match=r"at least 3 rows"):
        CollabData.from_df(rows, user="u", item="i", options=CollabOptions(leave_last="test"))
    with pytest.raises(ArgumentError, match=r"leave_last='valid'.*split"):
        split = Split.from_indices([0, 1], [2, 3])
        CollabData.from_df(rows, user="u", item="i", options=options, split=split)


def test_with_a_time_valid_is_later_than_train() -> None:
    rows = table()
    data = CollabData.from_df(rows, **COLUMNS, time="t", valid=0.25)
    times = [rows["t"][data.split.part(part)] for part in ("train", "valid")]
    assert times[0].max() < times[1].min()
    assert len(times[1]) == 15


def test_given_parts() -> None:
    rows = {**table(), "part": ["train", "valid", "test"] * 20}
    data = CollabData.from_df(rows, **COLUMNS, split="part")
    assert data.split.test.tolist() == list(range(2, 60, 3))
    first = {name: cells[:40] for name, cells in table().items()}
    later = {name: cells[40:] for name, cells in table().items()}
    data = CollabData.from_df(first, **COLUMNS, valid=later)
    expected = zip(later["u"], later["i"], strict=True)
    assert pairs_in(data, "valid") == [(int(u), int(i)) for u, i in expected]


# ---------------------------------------------------------------- the plan


def test_ratings_are_standardised_and_predictions_stay_in_the_range() -> None:
    data = CollabData.from_df(table(), **COLUMNS)
    learner = Learner(data, quiet=True)
    assert learner.plan["y_range"].value == [1 - 0.4, 5 + 0.4]
    train = table()["r"][data.split.train]
    task = data.task_arguments(data.preprocessor(VALUES), VALUES)
    assert task["mean"][0] == pytest.approx(train.mean(), rel=1e-12)
    assert task["std"][0] == pytest.approx(train.std(), rel=1e-12)
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.fill_(5.0)
    assert learner.predict({"u": 1, "i": 1}).values["r"] == pytest.approx(5.4, abs=1e-5)
    plain = Learner(data, quiet=True, choices={"targets": "as_is"})
    assert plain.built.model.y_range == pytest.approx((0.6, 5.4))


@pytest.mark.parametrize("architecture", ["collab_dot", "collab_net"])
@pytest.mark.parametrize("feedback", ["ratings", "implicit"])
def test_both_models_train_on_both_kinds_of_feedback(architecture: str, feedback: str) -> None:
    columns = COLUMNS if feedback == "ratings" else {"user": "u", "item": "i"}
    data = CollabData.from_df(table(), **columns)
    learner = Learner(data, architecture, quiet=True, choices={"batch_size": 32})
    learner.fit(1)
    assert np.isfinite(learner.evaluate()["loss"])
    names = {"r"} if feedback == "ratings" else {"probability_chosen", "chosen", "labels"}
    frame = pd.DataFrame(table()).set_index("t").head(3)
    found = learner.predict(frame)
    assert found.index.equals(frame.index)
    assert set(map(str, found.columns)) & names


def test_choices_that_do_not_fit_are_refused() -> None:
    implicit = CollabData.from_df(table(), user="u", item="i")
    rated = CollabData.from_df(table(), **COLUMNS)
    for data, choices, message in (
        (implicit, {"n_negatives": 0}, "whole number from 1"),
        (implicit, {"y_range": [0, 1]}, "no ratings"),
        (implicit, {"task": "regression"}, "'multi_label', because it follows"),
        (rated, {"n_negatives": 4}, "need no negatives"),
        (rated, {"y_range": [5, 1]}, "lowest and the highest"),
        (rated, {"n_factors": 0}, "whole number from 1"),
        (rated, {"min_count": 0}, "at least 1"),
    ):
        with pytest.raises(PlanError, match=message):
            Learner(data, quiet=True, choices=choices)
    with pytest.raises(PlanError, match="'collab_dot' or 'collab_net'"):
        Learner(rated, "mlp", quiet=True)
    frame = {"x": np.arange(40) * 0.3, "y": ["a", "b"] * 20}
    with pytest.raises(PlanError, match="take CollabData"):
        Learner(TabularData.from_df(frame, "y"), "collab_dot", quiet=True)


def test_rare_users_share_the_code_of_unknown_ones() -> None:
    rows = {"u": ["a"] * 3 + ["b"], "i": [1, 2, 3, 1], "r": [1.0, 2, 3, 4]}
    data = CollabData.from_df(rows, **COLUMNS, valid=0, options=CollabOptions(min_count=2))
    assert data.choices == {"min_count": 2}
    fitted = data.preprocessor({**VALUES, "min_count": 2})
    assert fitted.encode(rows).inputs["users"].tolist() == [2, 2, 2, 1]
    with pytest.raises(InputError, match=r"No value of 'u' has 9 train rows"):
        data.preprocessor({**VALUES, "min_count": 9})


def test_other_users_or_items_change_the_fingerprint() -> None:
    rows = table()
    found = CollabData.from_df(rows, user="u", item="i").fingerprint()
    assert CollabData.from_df(rows, user="u", item="i").fingerprint() == found
    rows["i"] = rows["i"][::-1]
    assert CollabData.from_df(rows, user="u", item="i").fingerprint()["items"] != found["items"]


def test_reports_name_user_and_item() -> None:
    data = CollabData.from_df(table(), user="u", item="i")
    rows = table()
    assert data.preview(4).caption == f"user {rows['u'][4]}, item {rows['i'][4]}"
    fitted = data.preprocessor({"min_count": 1})
    samples = data.dataset("valid", fitted, {"n_negatives": 2})
    drawn = int(samples.ids[-1])  # the last negative of the last row
    row = int(data.split.valid[-1])
    assert data.preview(drawn).caption == f"user {rows['u'][row]}, an item that was not chosen"


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "columns", "message"),
    [
        ({}, {"user": "who"}, r"no column 'who'"),
        ({}, {"item": "u"}, r"item='u' and user='u' are the same column"),
        ({"u": [1, None, *range(58)]}, {}, r"user \(column 'u'\) is missing in 1 of 60.*row 1"),
        ({"i": [np.nan, *range(59)]}, {}, r"item \(column 'i'\) is missing.*row 0"),
        ({"r": [1.0] * 59 + [np.inf]}, {}, r"'r' is infinite in 1 rows, the first is row 59"),
        ({"r": ["good", *"1" * 59]}, {}, r"'r'.*row 0|row 0.*'r'|good"),
        ({"r": [np.nan] * 60}, {}, r"'r' is missing in all 60 rows.*omit rating"),
        ({"u": [[1]] * 60}, {}, r"'u'"),
        ({name: [] for name in "uirt"}, {}, r"no rows"),
    ],
)
def test_bad_tables_are_refused_by_name(
    change: dict[str, Any], columns: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        CollabData.from_df({**table(), **change}, **{**COLUMNS, **columns})


def test_a_constant_rating_is_refused() -> None:
    data = CollabData.from_df({**table(), "r": [1.0] * 60}, **COLUMNS)
    with pytest.raises(InputError, match=r"'r' is 1 in all 48 train rows.*omit rating"):
        Learner(data, quiet=True).fit(1)


def test_missing_times_and_unknown_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"'t' of the times is missing"):
        CollabData.from_df({**table(), "t": [None, *range(59)]}, **COLUMNS, time="t")
    with pytest.raises(InputError, match=r"Unknown leave_last='tets'.*'test'"):
        CollabOptions(leave_last="tets")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"Unknown repeats='mean'"):
        CollabOptions(repeats="mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="min_count must be"):
        CollabOptions(min_count=0)
    with pytest.raises(ArgumentError, match=r"CollabOptions\(store_seen=…\)"):
        CollabData.from_df(table(), **COLUMNS, store_seen=True)  # pyright: ignore[reportCallIssue]


def test_rows_to_predict_are_checked(tmp_path: Path) -> None:
    learner = Learner(CollabData.from_df(table(), **COLUMNS), quiet=True)
    with pytest.raises(InputError, match=r"no column 'i'"):
        learner.predict({"u": 1})
    with pytest.raises(InputError, match=r"item \(column 'i'\) is missing.*An unknown item is"):
        learner.predict([{"u": 1, "i": 2}, {"u": 1, "i": None}])
    folder = learner.export(tmp_path / "export")
    with pytest.raises(ArtefactError, match="export of a model for CollabData"):
        TabularOptions(like=folder)
