"""Labels of evaluated data against the classes of the model."""

import unicodedata

import numpy as np
import pytest

from flambeau.data.known_classes import match_columns, match_labels, match_tags
from flambeau.data.label_rows import read_number_rows
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


def test_the_unicode_form_of_accents_may_differ() -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    found = match_labels([decomposed, "bar"], ["bar", composed])
    assert found.labels == [composed, "bar"]
    assert r"cafe\u0301" in found.readings[0].what


def test_rows_with_an_unknown_tag_are_refused_or_left_out() -> None:
    tags = [["red", "big"], ["Red"], ["red", "new", "new"], []]
    with pytest.raises(InputError, match=r"1 of 4 classes .* new \(1\)"):
        match_tags(tags, ["big", "old", "red"])
    found = match_tags(tags, ["big", "old", "red"], "skip")
    assert (found.rows, found.labels) == ([0, 1, 3], [["red", "big"], ["red"], []])
    what = " ".join(reading.what for reading in found.readings)
    assert "new (1)" in what
    assert "Red as red" in what
    assert "No sample has the class old" in what
    with pytest.raises(InputError, match="All classes"):
        match_tags([["x"]], ["big"], "skip")


def test_columns_of_classes_are_kept_and_absent_classes_named() -> None:
    labels = [np.array([1, 0, 0]), np.array([0, 0, 1])]
    rows = read_number_rows(labels)
    assert rows is not None
    found = match_columns(rows, labels, ["ant", "bee", "cow"])
    assert (found.rows, found.labels) == ([0, 1], labels)
    assert "No sample has the class bee" in found.readings[0].what
