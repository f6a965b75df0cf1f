"""`SplitRequest`: parts that are given, parts that are drawn, and rows that are not used."""

from __future__ import annotations

import numpy as np
import pytest

from flambeau.data.split import PARTS, Split
from flambeau.data.split_request import (
    SplitRequest,
    consecutive_rows,
    rows_by_part,
)
from flambeau.errors import ArgumentError, SplitError


def test_without_given_parts_the_split_is_that_of_split_random() -> None:
    classes = np.arange(40) % 3
    found = SplitRequest(0.25, 4, seed=7).resolve(40, classes=classes)
    expected = Split.random(40, 0.25, 4, seed=7, stratify=classes)
    for part in PARTS:
        assert found.part(part).tolist() == expected.part(part).tolist()
    assert found.method == expected.method == "random, stratified (seed 7)"


def test_given_parts_are_kept_and_missing_ones_are_drawn_from_train() -> None:
    rows = consecutive_rows({"train": 20, "test": 5})
    found = SplitRequest(0.25).resolve(25, given=rows)
    assert found.test.tolist() == list(range(20, 25))
    assert sorted([*found.train, *found.valid]) == list(range(20))
    assert len(found.valid) == 5
    assert found.method == "valid drawn from train, random (seed 0)"
    # Test alone is drawn as valid would be, of the same size and rows.
    rows = consecutive_rows({"train": 20, "valid": 5})
    other = SplitRequest(test=0.25).resolve(25, given=rows)
    assert other.test.tolist() == found.valid.tolist()
    assert other.valid.tolist() == list(range(20, 25))
    complete = SplitRequest().resolve(25, given=rows)
    assert (complete.train.tolist(), complete.method) == (list(range(20)), "given")


def test_train_is_the_rows_in_no_part_if_it_is_not_given() -> None:
    found = SplitRequest().resolve(4, given=rows_by_part([None, "valid", None, None]))
    assert found.train.tolist() == [0, 2, 3]
    assert found.method == "given; train is the rows without a part"


def test_rows_are_numbered_anew_without_unusable_rows() -> None:
    kept = np.array([0, 2, 3, 5])
    given = rows_by_part(["train", "train", "valid", "train", "valid", "valid"])
    found = SplitRequest().resolve(6, kept=kept, given=given)
    assert (found.train.tolist(), found.valid.tolist()) == ([0, 2], [1, 3])
    split = SplitRequest(split=Split.from_indices([5, 1, 0], [3])).resolve(6, kept=kept)
    assert (split.train.tolist(), split.valid.tolist()) == ([3, 0], [2])
    drawn = SplitRequest(1).resolve(6, kept=kept, classes=np.array([0, 0, 1, 1]))
    assert sorted([*drawn.train, *drawn.valid]) == [0, 1, 2, 3]
    with pytest.raises(SplitError, match="All 2 rows of the valid part are unusable"):
        SplitRequest().resolve(4, kept=np.array([0, 1]), given={"valid": np.array([2, 3])})


def test_a_split_has_precedence_over_given_parts() -> None:
    split = Split.from_indices([0, 1], [2])
    found = SplitRequest(split=split).resolve(4, given=rows_by_part(["valid"] * 2 + ["train"] * 2))
    assert found.train.tolist() == [0, 1]
    with pytest.raises(SplitError, match="train part contains row 1, but the data have 1 rows"):
        SplitRequest(split=split).resolve(1)


@pytest.mark.parametrize(
    ("sizes", "part"),
    [
        ({"valid": 0.4}, "valid"),
        ({"valid": 0}, "valid"),
        ({"valid": None}, "valid"),
        ({"test": 0.1}, "test"),
        ({"test": 2}, "test"),
        ({"calibration": 0.1}, "calibration"),
    ],
)
def test_a_size_of_a_part_that_is_given_is_refused(sizes: dict, part: str) -> None:
    counts = {"train": 8, "valid": 4, "test": 3, "calibration": 2}
    given = consecutive_rows(counts)
    message = f"{part}={sizes[part]} would have no effect, because the data already have the part"
    for request in (SplitRequest(**sizes), SplitRequest(**sizes, split=Split.from_parts(given))):
        with pytest.raises(SplitError, match=message):
            request.resolve(17, given=given)


def test_the_default_size_or_the_number_of_rows_is_no_contradiction() -> None:
    given = consecutive_rows({"train": 8, "valid": 4})
    for request in (
        SplitRequest(),
        SplitRequest(valid=4),
        SplitRequest(valid=0.1, default_valid=0.1),
        SplitRequest(valid=0.3, scored="auto"),
    ):
        assert request.resolve(12, given=given).valid.tolist() == [8, 9, 10, 11]
    without = Split.from_indices(range(12), None)
    assert len(SplitRequest(valid=0, split=without).resolve(12).valid) == 0


def test_separate_samples_are_told_from_sizes() -> None:
    request = SplitRequest(valid=("x", "y"), test=np.float32(0.2))
    assert request.separate(tuple) == {"valid": ("x", "y")}
    assert request.separate(object) == {"valid": ("x", "y")}
    assert SplitRequest(valid=["x"], test=3).separate(tuple) == {}
    with pytest.raises(ArgumentError, match=r"tuple of 3\. Give two elements: valid=\(a"):
        SplitRequest(valid=(1, 2, 3)).separate(tuple, pair="(a, b)")
    with pytest.raises(SplitError, match="Separate samples for test cannot be combined"):
        SplitRequest(test=(1, 2), split=Split.from_indices([0], [1])).separate(tuple)


@pytest.mark.parametrize(
    ("request_", "given", "kind", "message"),
    [
        (SplitRequest(valid=-1), None, SplitError, "valid=-1 is invalid"),
        (SplitRequest(valid="0.2"), None, ArgumentError, "valid is '0.2' of type str"),
        (SplitRequest(test=1.5), {"valid": 2}, SplitError, r"test=1\.5 cannot be drawn from the 8"),
        (SplitRequest(test="x"), {"valid": 2}, ArgumentError, "test='x' cannot be drawn"),
        (SplitRequest(test=8), {"valid": 2}, SplitError, "test=8 cannot be drawn from the 8 train"),
        (SplitRequest(split="part"), None, ArgumentError, "split is a str, not a Split"),
        (SplitRequest(split=([0], [1])), {"valid": 2}, ArgumentError, "is a tuple, not a Split"),
        (SplitRequest(), {"valid": 0}, SplitError, "The valid part has no rows"),
    ],
)
def test_wrong_requests_name_part_and_value(request_, given, kind, message) -> None:
    rows = None if given is None else consecutive_rows({"train": 8, **given})
    with pytest.raises(kind, match=message):
        request_.resolve(10, given=rows)


def test_parts_are_drawn_from_the_latest_rows_in_time() -> None:
    times = np.arange(20)[::-1]  # row 0 is the latest
    split = SplitRequest(valid=4, test=3).resolve(20, times=times, embargo=2)
    assert split.test.tolist() == [2, 1, 0]
    assert split.valid.tolist() == [7, 6, 5, 4]  # row 3 is one earlier than the first test row
    assert split.train.tolist() == list(range(19, 8, -1))
    given = {"valid": np.array([0, 1])}
    split = SplitRequest(test=3).resolve(20, times=list(times), given=given)
    assert (split.valid.tolist(), split.test.tolist()) == ([0, 1], [4, 3, 2])
    assert split.method == "test drawn from train, by time"
    only = SplitRequest(valid=0, test=3).resolve(20, times=times)
    assert not len(only.valid)
    assert only.test.tolist() == [2, 1, 0]
