"""Folds of a cross-validation and the embargo of a split by time."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import TimeSeriesSplit

from flambeau import Split
from flambeau.errors import ArgumentError, SplitError


def covers_once(folds: list[Split], n: int) -> bool:
    held = np.concatenate([fold.valid for fold in folds])
    both = all(sorted([*fold.train, *fold.valid]) == list(range(n)) for fold in folds)
    return both and sorted(held) == list(range(n))


def test_random_folds_hold_out_every_row_once() -> None:
    folds = Split.folds(23, 5)
    assert covers_once(folds, 23)
    assert sorted(len(fold.valid) for fold in folds) == [4, 4, 5, 5, 5]
    again = Split.folds(23, 5)
    assert all((a.valid == b.valid).all() for a, b in zip(folds, again, strict=True))
    assert any(
        (a.valid != b.valid).any() for a, b in zip(folds, Split.folds(23, 5, seed=1), strict=True)
    )
    assert folds[1].method == "fold 2 of 5, random (seed 0)"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from("abc"), min_size=6, max_size=60), st.integers(2, 6), st.integers(0, 9)
)
def test_stratified_folds_divide_every_class_evenly(labels: list[str], k: int, seed: int) -> None:
    folds = Split.folds(len(labels), k, stratify=labels, seed=seed)
    assert covers_once(folds, len(labels))
    for name in set(labels):
        counts = [sum(labels[row] == name for row in fold.valid) for fold in folds]
        assert max(counts) - min(counts) <= 1
    sizes = [len(fold.valid) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_a_class_with_fewer_rows_than_folds_is_noted() -> None:
    folds = Split.folds(12, 4, stratify=["rare"] * 3 + ["often"] * 9)
    assert all("absent from some: rare" in fold.notes[0] for fold in folds)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=20, max_size=80), st.integers(0, 9))
def test_a_group_is_in_one_fold_only(groups: list[int], seed: int) -> None:
    k = 3
    if len(set(groups)) < k:
        with pytest.raises(SplitError, match="distinct groups are too few for 3 folds"):
            Split.folds(len(groups), k, groups=groups, seed=seed)
        return
    folds = Split.folds(len(groups), k, groups=groups, seed=seed)
    assert covers_once(folds, len(groups))
    for fold in folds:
        fold.check_groups(groups)
        assert len(fold.valid)


def test_groups_of_equal_size_are_divided_evenly() -> None:
    groups = np.repeat(np.arange(12), 5)
    assert [len(fold.valid) for fold in Split.folds(60, 4, groups=groups)] == [15] * 4


def test_classes_are_divided_evenly_among_folds_of_groups() -> None:
    # 6 groups of class 0 and 3 of class 1, each of 4 rows: two and one in every fold.
    groups = np.repeat(np.arange(9), 4)
    labels = (groups >= 6).astype(int)
    for fold in Split.folds(36, 3, groups=groups, stratify=labels):
        assert np.bincount(labels[fold.valid]).tolist() == [8, 4]


def test_folds_forward_in_time_are_those_of_scikit_learn() -> None:
    draws = np.random.default_rng(0)
    times = draws.permutation(24)
    order = np.argsort(times)
    expected = TimeSeriesSplit(n_splits=5).split(times)
    for fold, (train, valid) in zip(Split.folds(24, 5, times=times), expected, strict=True):
        assert fold.train.tolist() == order[train].tolist()
        assert fold.valid.tolist() == order[valid].tolist()


def test_rows_of_one_time_are_in_one_fold() -> None:
    times = np.repeat([5, 1, 3, 2, 4], 4)
    for fold in Split.folds(20, 3, times=times):
        assert not set(times[fold.train]) & set(times[fold.valid])
        assert max(times[fold.train]) < min(times[fold.valid])


days = [date(2024, 1, 1) + timedelta(days=day) for day in range(20)]
TIMES: dict[str, tuple[Any, Any]] = {
    "numbers": (np.arange(20), 3),
    "small unsigned": (np.arange(20, dtype=np.uint8), 3),
    "dates": (days, timedelta(days=3)),
    "datetime64": (np.array(days, "datetime64[s]"), timedelta(days=3)),
    "nanoseconds": (np.array(days, "datetime64[ns]"), np.timedelta64(3, "D")),
    "text": ([day.isoformat() for day in days], timedelta(days=3)),
    "with zone": ([f"{day.isoformat()}T00:00:00Z" for day in days], timedelta(days=3)),
    "moments": ([datetime(day.year, day.month, day.day) for day in days], timedelta(hours=72)),
}


@pytest.mark.parametrize("kind", TIMES)
def test_the_embargo_leaves_out_rows_shortly_before_a_later_part(kind: str) -> None:
    times, embargo = TIMES[kind]
    split = Split.by_time(times, valid=5, test=4, embargo=embargo)
    # Test starts on day 16 and valid 5 rows before day 14, the first one less than 3 days before.
    assert split.test.tolist() == [16, 17, 18, 19]
    assert split.valid.tolist() == [9, 10, 11, 12, 13]
    assert split.train.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert split.notes[-1] == "4 rows left out by the embargo"
    first = Split.folds(20, 4, times=times, embargo=embargo)[0]
    assert (first.train.tolist(), first.valid.tolist()) == ([0, 1], [4, 5, 6, 7])


def test_pandas_times_with_a_zone_take_an_embargo() -> None:
    import pandas as pd

    times = pd.Series(pd.date_range("2024-03-30", periods=6, freq="D", tz="Europe/Berlin"))
    # The clock changes on 31 March: midnight to midnight is 23 hours there.
    split = Split.by_time(times, valid=4, embargo=pd.Timedelta(hours=24))
    assert split.train.tolist() == [0]
    split = Split.by_time(times, valid=5, embargo=pd.Timedelta(hours=23))
    assert split.train.tolist() == [0]


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "one fold": ({"k": 1}, SplitError, "k=1 folds are too few"),
    "not a number": ({"k": 2.5}, ArgumentError, "k is 2.5"),
    "more folds than rows": ({"k": 21}, SplitError, "20 rows are too few for 21 folds"),
    "embargo without times": ({"embargo": 1}, ArgumentError, "embargo needs times"),
    "times and groups": (
        {"times": range(20), "groups": range(20)},
        ArgumentError,
        "times cannot be combined with groups",
    ),
    "few times": ({"times": [0, 1] * 10}, SplitError, "2 distinct times are too few for 5 folds"),
    "embargo too long": ({"times": range(20), "embargo": 9}, SplitError, "leaves no train row"),
    "negative": ({"times": range(20), "embargo": -1}, ArgumentError, "must not be negative"),
    "no unit": ({"times": days, "embargo": 3}, ArgumentError, "not a duration between times"),
    "duration of numbers": (
        {"times": range(20), "embargo": timedelta(days=1)},
        ArgumentError,
        "not a duration between times",
    ),
    "wrong length": ({"stratify": [0, 1]}, SplitError, "stratify has 2 values, but .* 20 rows"),
    "groups of another length": ({"groups": [0, 1] * 6}, SplitError, "groups has 12 values"),
    "times of another length": ({"times": range(12)}, SplitError, "times has 12 values"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_folds_are_refused(case: str) -> None:
    arguments, error, message = BAD[case]
    with pytest.raises(error, match=message):
        Split.folds(20, **{"k": 5, **arguments})


def test_an_embargo_that_leaves_no_rows_is_refused() -> None:
    with pytest.raises(SplitError, match="leaves no train rows"):
        Split.by_time(range(10), valid=5, embargo=6)
    with pytest.raises(SplitError, match="leaves no rows for the parts before valid"):
        Split.by_time(range(10), valid=2, test=5, embargo=5)
