import datetime
import itertools
from typing import Any

import numpy as np
import pytest

from flambeau.data import Split
from flambeau.data.row_codes import number_values
from flambeau.errors import ArgumentError, SplitError

PARTS = ("train", "valid", "test")


def rows(split: Split) -> list[int]:
    return sorted(int(row) for part in PARTS for row in split.part(part))


def as_lists(split: Split) -> list[list[int]]:
    return [split.part(part).tolist() for part in PARTS]


@pytest.mark.parametrize("seed", range(10))
def test_random_split_has_every_row_once_and_requested_sizes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(5, 300))
    split = Split.random(n, valid=0.2, test=0.1, seed=seed)
    assert rows(split) == list(range(n))
    assert len(split.valid) == max(1, round(0.2 * n))
    assert len(split.test) == max(1, round(0.1 * n))


def test_random_split_depends_only_on_the_seed() -> None:
    np.random.seed(1)
    one = Split.random(50, seed=3)
    np.random.seed(2)
    assert as_lists(one) == as_lists(Split.random(50, seed=3))
    assert as_lists(one) != as_lists(Split.random(50, seed=4))
    # Frozen: a saved plan that says "seed 3" must mean the same rows in every release.
    assert Split.random(10, seed=0).valid.tolist() == [1, 2]


def test_a_part_size_may_be_a_number_of_rows() -> None:
    split = Split.random(50, valid=7, test=5)
    assert [len(split.part(part)) for part in PARTS] == [38, 7, 5]


def slow_quota(labels: np.ndarray, share: float) -> dict[int, float]:
    return {int(c): float((labels == c).sum() * share) for c in np.unique(labels)}


@pytest.mark.parametrize("seed", range(15))
def test_stratified_keeps_class_proportions_within_one_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(40, 400))
    labels = rng.choice(6, n, p=[0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
    split = Split.random(n, 0.25, 0.1, seed, stratify=labels)
    assert rows(split) == list(range(n))
    for part in ("valid", "test"):
        share = len(split.part(part)) / n
        for label, quota in slow_quota(labels, share).items():
            found = (labels[split.part(part)] == label).sum()
            assert abs(found - quota) <= 1.0 + 1e-9, (part, label, found, quota)
    for label in np.unique(labels):
        assert (labels[split.train] == label).any()


def test_stratified_sizes_are_the_requested_sizes() -> None:
    labels = np.repeat(["a", "b", "c"], [50, 30, 20])
    split = Split.random(100, 0.2, 0.1, seed=1, stratify=labels)
    for part, wanted in (("train", (35, 21, 14)), ("valid", (10, 6, 4)), ("test", (5, 3, 2))):
        assert tuple((labels[split.part(part)] == c).sum() for c in "abc") == wanted
    assert split.describe() == "random, stratified (seed 1): 70 train, 20 valid, 10 test rows"


def largest_remainder(counts: dict[str, int], total: int) -> dict[str, int]:
    """Return rows by class: the whole part of each quota, then one more for the largest rests."""
    quotas = {name: count * total / sum(counts.values()) for name, count in counts.items()}
    found = {name: int(quota) for name, quota in quotas.items()}
    rests = sorted(counts, key=lambda name: (found[name] - quotas[name], -counts[name]))
    for name in rests[: total - sum(found.values())]:
        found[name] += 1
    return found


@pytest.mark.parametrize("names", ["abcd", "dcba", "bdac"])
@pytest.mark.parametrize("total", range(4, 30, 3))
def test_left_over_rows_go_to_the_largest_remainders(names: str, total: int) -> None:
    counts = dict(zip(names, (37, 23, 11, 29), strict=True))  # no two rests are equal
    labels = np.array([name for name, count in counts.items() for _ in range(count)])
    split = Split.random(100, total, seed=total, stratify=labels)
    found = {name: int((labels[split.valid] == name).sum()) for name in counts}
    assert found == largest_remainder(counts, total)


def test_of_equal_remainders_the_larger_class_gets_the_row() -> None:
    labels = np.repeat(["a", "b", "c"], [10, 30, 20])  # quotas 0.5, 1.5 and 1
    for order in (labels, labels[::-1]):
        split = Split.random(60, 3, seed=0, stratify=order)
        found = [int((order[split.valid] == name).sum()) for name in "abc"]
        assert found == [0, 2, 1]


def test_a_class_keeps_a_train_row_although_its_remainder_is_the_largest() -> None:
    labels = np.repeat(["a", "b"], [2, 30])  # quotas 1.5625 and 23.4375
    split = Split.random(32, 25, seed=0, stratify=labels)
    assert [int((labels[split.valid] == name).sum()) for name in "ab"] == [1, 24]


def test_a_single_row_of_a_class_stays_in_train_and_is_noted() -> None:
    labels = ["cat"] * 10 + ["dog"] * 10 + ["emu"]
    for seed in range(20):
        split = Split.random(21, 0.3, seed=seed, stratify=labels)
        assert 20 in split.train
    assert "single row, kept in train: emu" in split.notes[0]
    assert "emu" in str(split)


@pytest.mark.parametrize("seed", range(10))
def test_by_group_keeps_every_group_in_one_part(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 30, 300)
    split = Split.by_group(groups, 0.2, 0.2, seed)
    assert rows(split) == list(range(300))
    split.check_groups(groups)
    sizes = np.bincount(groups)
    for part in ("valid", "test"):
        # Whole groups come within half of the largest.
        assert abs(len(split.part(part)) - 60) <= sizes.max() / 2


@pytest.mark.parametrize("test", [0, 0.25])
def test_by_group_without_a_valid_part_puts_no_group_in_valid(test: float) -> None:
    groups = np.arange(60) // 3
    split = Split.by_group(groups, valid=0, test=test)
    assert not len(split.valid)
    assert len(split.test) == 60 * test
    assert sorted([*split.train, *split.test]) == list(range(60))
    two = Split.by_group(["a", "b", "a"], valid=0, test=1)  # two groups are enough for two parts
    assert two.test.tolist() == [1]


def test_by_group_with_one_large_group_still_fills_every_part() -> None:
    groups = ["big"] * 100 + ["a", "b"]
    for seed in range(10):
        split = Split.by_group(groups, 0.2, 0.2, seed=seed)
        assert all(len(split.part(part)) for part in PARTS)
    with pytest.raises(SplitError, match="2 distinct groups are too few for 3 parts"):
        Split.by_group(["a", "b", "a"], valid=1, test=1)


def test_a_leaking_group_is_named() -> None:
    split = Split.from_indices([0, 1], [2, 3])
    with pytest.raises(SplitError, match="1 groups are in both train and valid: 'ann'"):
        split.check_groups(["ann", "bob", "ann", "eve"])


@pytest.mark.parametrize("seed", range(10))
def test_by_time_is_in_order_and_keeps_ties_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 40, 200)
    split = Split.by_time(times, 0.2, 0.1)
    assert rows(split) == list(range(200))
    assert times[split.train].max() < times[split.valid].min()
    assert times[split.valid].max() < times[split.test].min()
    most = np.bincount(times).max()
    assert abs(len(split.test) - 20) <= most
    assert abs(len(split.valid) - 40) <= most
    assert (np.diff(times[split.train]) >= 0).all()


def test_by_time_accepts_dates_and_strings() -> None:
    days = [datetime.date(2024, 1, day) for day in (5, 1, 3, 2, 4)]
    assert Split.by_time(days, valid=1).valid.tolist() == [0]
    stamps = np.array(["2024-01-05", "2024-01-01", "2024-01-03"], dtype="datetime64[D]")
    split = Split.by_time(stamps, valid=1, test=1)
    assert as_lists(split) == [[1], [2], [0]]
    assert split.notes == ("validation starts at 2024-01-03", "test starts at 2024-01-05")


@pytest.mark.parametrize(
    "times",
    [
        ["30.12.2019", "31.12.2019", "01.01.2020", "02.01.2020"],
        ["2020-1-9", "2020-1-10", "2020-1-11"],
        ["8", "9", "10", "11"],
        ["12/31/2019", "01/01/2020", "01/02/2020"],
        ["2019-31-12", "2020-01-01", "2020-02-01"],  # year, day, month
        ["Jan 2020", "Feb 2020", "Mar 2020"],
        np.array(["8", "9", "10"], dtype="S2"),
        np.array(["8", "9", "10"], dtype=object),
    ],
)
def test_by_time_refuses_text_that_does_not_sort_by_time(times: Any) -> None:
    with pytest.raises(SplitError, match=r"times has the text .* in row \d.*pd\.to_datetime"):
        Split.by_time(times, valid=1)


def test_by_time_refuses_text_of_several_forms() -> None:
    for times in (
        ["2020-01-09T10:00:00Z", "2020-01-09T11:00:00+02:00", "2020-01-09T12:00:00Z"],
        ["2020-01-09T10:00", "2020-01-09 11:00", "2020-01-10 12:00"],
        ["20200109", "2020-01-10", "2020-01-11"],
    ):
        with pytest.raises(SplitError, match=r"several forms or time zones.*utc=True"):
            Split.by_time(times, valid=1)


@pytest.mark.parametrize(
    "times",
    [
        ["2020-01-09", "2020-01-10", "2020-01-11"],
        ["2019", "2020", "2021"],
        ["2019-12", "2020-01", "2020-02"],
        ["20191231", "20200101", "20200102"],
        ["2020-01-09T08:30:00Z", "2020-01-09T08:30:00.5Z", "2020-01-09T08:31:00Z"],
        ["2020-01-09 08:30", "2020-01-09 08:30:01", "2020-01-10 00:00"],
    ],
)
def test_by_time_orders_iso_8601_text_by_time(times: list[str]) -> None:
    split = Split.by_time([*reversed(times)], valid=1)
    assert as_lists(split) == [[2, 1], [0], []]
    assert split.notes == (f"validation starts at {times[-1]}",)


def test_groups_of_text_beside_numbers_or_nan_are_refused() -> None:
    with pytest.raises(SplitError, match="no value in row 1"):
        Split.by_group(["a", float("nan"), "b", "c"])
    with pytest.raises(SplitError, match="mixes types"):
        Split.by_group(["a", 1, "b", "c"])


def test_by_time_errors() -> None:
    with pytest.raises(SplitError, match="1 distinct times are too few for 2 parts"):
        Split.by_time([3, 3, 3])
    with pytest.raises(SplitError, match=r"no value in rows 1, 3"):
        Split.by_time(np.array([1.0, np.nan, 2.0, np.nan]))
    with pytest.raises(SplitError, match=r"no value in row 0"):
        Split.by_time([None, 1, 2])


def test_from_indices_keeps_the_order_and_copies() -> None:
    train = np.array([4, 2])
    split = Split.from_indices(train, [3], [0])
    train[0] = 99
    assert as_lists(split) == [[4, 2], [3], [0]]
    assert split.train.dtype == np.int64


@pytest.mark.parametrize(
    ("train", "valid", "test", "message"),
    [
        ([0, 1, 2], [2, 3], [], "train and valid both contain row 2"),
        ([0, 1], [2], [1, 0], "train and test both contain rows 0, 1"),
        ([0, 1, 1], [2], [], "The train part contains row 1 more than once"),
        ([], [2], [], "The train part has no rows"),
        ([1], [], [], "The valid part has no rows"),
        ([1, -3], [2], [], "The train part contains row -3"),
        ([True, False], [2], [], r"np.flatnonzero\(mask\)"),
        ([[1], [2]], [3], [], r"shape \(2, 1\)"),
        ([0.5], [3], [], "array of float64"),
        ([0, 10**12], [10**12], [], "both contain row 1000000000000"),
    ],
)
def test_from_indices_names_the_invalid_rows(
    train: list, valid: list, test: list, message: str
) -> None:
    with pytest.raises(SplitError, match=message):
        Split.from_indices(train, valid, test)


def test_rows_past_the_end_are_named() -> None:
    split = Split.from_indices([0, 1], [7, 8])
    split.check_length(9)
    with pytest.raises(
        SplitError, match=r"valid part contains rows 7, 8, but the data have 5 rows"
    ):
        split.check_length(5)


@pytest.mark.parametrize(("valid", "test"), [(-1, 0), (1.5, 0), (0.2, -0.1)])
def test_invalid_part_sizes_raise(valid: float, test: float) -> None:
    with pytest.raises(SplitError, match="is invalid"):
        Split.random(10, valid, test)


def test_too_few_rows() -> None:
    with pytest.raises(SplitError, match="2 rows are too few for 3 parts of at least one row each"):
        Split.random(2, valid=0.2, test=0.2)
    with pytest.raises(
        SplitError, match=r"leave none of the 3 rows for train\. Give smaller sizes"
    ):
        Split.random(3, valid=0.5, test=0.5)
    with pytest.raises(SplitError, match="Give one class per row"):
        Split.random(4, stratify=[1, 2])


def test_an_unknown_part_suggests_the_closest_name() -> None:
    with pytest.raises(ArgumentError, match="The parts are train, valid, test, calibration"):
        Split.random(10).part("validation")


# ---------------------------------------------------------------- the fourth part


def all_rows(split: Split) -> list[int]:
    return sorted([*rows(split), *split.calibration.tolist()])


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_random_calibration_rows_are_taken_from_train(seed: int, stratified: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, 120, p=[0.5, 0.3, 0.15, 0.05]) if stratified else None
    without = Split.random(120, 0.2, 0.1, seed, labels)
    split = Split.random(120, 0.2, 0.1, seed, labels, calibration=0.15)
    assert all_rows(split) == list(range(120))
    assert len(split.calibration) == 18
    assert split.valid.tolist() == without.valid.tolist()
    assert split.test.tolist() == without.test.tolist()
    assert set(split.calibration) <= set(without.train)
    if labels is not None:
        for label, quota in slow_quota(labels, 0.15).items():
            assert abs((labels[split.calibration] == label).sum() - quota) <= 1.0 + 1e-9
    assert split.describe().endswith("66 train, 24 valid, 12 test, 18 calibration rows")
    assert without.describe().endswith("84 train, 24 valid, 12 test rows")


@pytest.mark.parametrize("seed", range(5))
def test_by_group_keeps_groups_of_calibration_whole(seed: int) -> None:
    groups = np.random.default_rng(seed).integers(0, 40, 400)
    split = Split.by_group(groups, 0.2, 0.1, seed, calibration=0.15)
    assert all_rows(split) == list(range(400))
    split.check_groups(groups)
    assert abs(len(split.calibration) - 60) <= 20
    assert split.valid.tolist() == Split.by_group(groups, 0.2, 0.1, seed).valid.tolist()
    row = split.train[0]
    leaking = Split(split.train[1:], split.valid, split.test, np.append(split.calibration, row))
    with pytest.raises(SplitError, match="are in both train and calibration"):
        leaking.check_groups(groups)
    with pytest.raises(SplitError, match="3 distinct groups are too few for 4 parts"):
        Split.by_group([0, 1, 2, 2], 1, 1, calibration=1)


def test_by_time_calibration_is_between_valid_and_test() -> None:
    times = np.random.default_rng(0).integers(0, 60, 200)
    split = Split.by_time(times, 0.2, 0.1, calibration=0.15)
    assert all_rows(split) == list(range(200))
    in_order = [split.train, split.valid, split.calibration, split.test]
    for earlier, later in itertools.pairwise(in_order):
        assert times[earlier].max() < times[later].min()
    starts = [times[part].min() for part in in_order[1:]]
    names = ["validation", "calibration", "test"]
    assert list(split.notes) == [
        f"{name} starts at {start}" for name, start in zip(names, starts, strict=True)
    ]
    with pytest.raises(SplitError, match="3 distinct times are too few for 4 parts"):
        Split.by_time([1, 2, 3, 3], 1, 1, calibration=1)


def test_a_row_of_calibration_in_another_part_is_named() -> None:
    for part in ("train", "valid", "test"):
        given = {"train": [0, 1], "valid": [2, 3], "test": [4, 5]}
        with pytest.raises(SplitError, match=rf"{part} and calibration both contain row "):
            Split.from_indices(**given, calibration=[9, given[part][1]])
    split = Split.from_indices([0], [1], [2], [5, 3])
    assert split.calibration.tolist() == [5, 3]
    with pytest.raises(SplitError, match="calibration part contains row 5, but the data have 4"):
        split.check_length(4)


def test_from_parts_takes_names_and_refuses_others() -> None:
    split = Split.from_parts({"calibration": [4], "train": [0, 2], "valid": [1]})
    assert [*as_lists(split), split.calibration.tolist()] == [[0, 2], [1], [], [4]]
    with pytest.raises(ArgumentError, match="No part 'holdout'"):
        Split.from_parts({"train": [0], "valid": [1], "holdout": [2]})


@pytest.mark.parametrize("size", [-0.1, 1.5, -3])
def test_invalid_calibration_sizes_raise(size: float) -> None:
    with pytest.raises(SplitError, match=f"calibration={size} is invalid"):
        Split.random(50, calibration=size)
    with pytest.raises(SplitError, match=r"valid=0\.5, test=0\.3 and calibration=0\.3 leave none"):
        Split.random(50, 0.5, 0.3, calibration=0.3)


def test_missing_values_of_pandas_are_named() -> None:
    pandas = pytest.importorskip("pandas")
    for kind in ("string", "Int64", "category", object):
        values = pandas.Series(["a", None, "b"] if kind != "Int64" else [1, None, 2], dtype=kind)
        with pytest.raises(SplitError, match="no value in row 1"):
            Split.by_group(values)
        with pytest.raises(SplitError, match="no value in row 1"):
            Split.by_time(values)


@pytest.mark.parametrize(
    "values",
    [
        np.array([100, -100, 100, 7] * 60, np.int8),
        np.array([5, 3, 5], np.uint64),
        np.array([2**62 + 1, 2**62, 2**62 + 1]),
        np.array([-(2**63), -(2**63) + 2, -(2**63)]),
        np.array([2**63, 2**64 - 1, 2**63], np.uint64),
        np.array([3, 1_000_000, 3]),
        np.array([0, 0, 0], np.uint8),
    ],
)
def test_counted_codes_are_those_of_sorting(values: np.ndarray) -> None:
    codes, distinct = number_values(values, "groups")
    expected, ranks = np.unique(values, return_inverse=True)
    np.testing.assert_array_equal(distinct, expected)
    np.testing.assert_array_equal(codes, ranks)
    assert distinct.dtype == values.dtype
