"""Labels of evaluated data against the classes of the model."""

import pytest

from flambeau.data.known_classes import match_labels
from flambeau.data.split_request import SplitRequest, rows_by_part
from flambeau.errors import InputError


def test_unknown_classes_are_counted_and_refused() -> None:
    labels = ["bee", "zebra", "ant", "zebra", "yak"]
    with pytest.raises(
        InputError, match=r"2 of 4 classes .* zebra \(2\), yak \(1\).*--unknown skip"
    ):
        match_labels(labels, ["ant", "bee"])
    found = match_labels(labels, ["ant", "bee"], "skip")
    assert (found.rows, found.labels) == ([0, 2], ["bee", "ant"])
    assert "zebra (2), yak (1)" in found.readings[0].what
    with pytest.raises(InputError, match="All classes"):
        match_labels(["x", "y"], ["ant", "bee"], "skip")


def test_absent_classes_are_named() -> None:
    found = match_labels(["bee", "bee"], ["ant", "bee", "cow"])
    assert found.rows == [0, 1]
    assert "No sample has the class ant, cow" in found.readings[0].what


def test_another_case_is_the_same_class_unless_it_could_be_two() -> None:
    found = match_labels(["Bee", "ANT", "ant"], ["ant", "bee"])
    assert found.labels == ["bee", "ant", "ant"]
    assert "Bee as bee, ANT as ant" in found.readings[0].what
    with pytest.raises(InputError, match=r"ANT \(1\)"):
        match_labels(["ANT", "ant"], ["Ant", "ant", "bee"])


def test_numbers_are_names_of_classes_or_indices() -> None:
    assert match_labels([3, 7, 7], ["3", "5", "7"]).labels == ["3", "7", "7"]
    assert match_labels([0, 1], ["ant", "bee"]).labels == [0, 1]


def test_nothing_is_drawn_from_data_that_are_only_scored() -> None:
    split = SplitRequest(scored="auto").resolve(3)
    assert (split.test.tolist(), len(split.train), split.method) == ([0, 1, 2], 0, "all rows")
    split = SplitRequest(scored="all").resolve(3, given=rows_by_part(["valid", None, "test"]))
    assert (split.valid.tolist(), split.test.tolist()) == ([0], [1, 2])
    assert len(SplitRequest(scored="valid").resolve(10).valid) == 2
