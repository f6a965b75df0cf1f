"""Labels whose type or spelling leaves doubts: they are read as written, and the doubt is named."""

from decimal import Decimal

import pytest

from flambeau.data.targets import read_labels
from flambeau.errors import InputError


def doubt(labels: list, **given: object) -> str:
    """Return what is doubtful about the labels; "" if nothing is."""
    readings = read_labels(labels, **given).readings  # pyright: ignore[reportArgumentType]
    return " ".join(reading.what for reading in readings if reading.confidence < 0.5)


@pytest.mark.parametrize(
    ("labels", "kind", "words"),
    [
        (["red;round", "red", "blue;round", "blue"] * 3, "classification", "separated by ';'"),
        (["a|b", "a|c", "b|c", "b"] * 3, "classification", "separated by '|'"),
        (["dry sand", "wet road", "dry road", "wet sand", "dry wet", "road sand", "wet"] * 3,
         "classification", "separated by ' '"),
        ([" Ant", "ant", "bee"] * 3, "classification", "' Ant'/'ant'"),
        (["ANT", "ant"] * 3, "classification", "'ANT'/'ant'"),
        (["caf\u00e9", "cafe\u0301"] * 3, "classification", r"e\u0301"),
        (["1,5", "2,5", "3"] * 3, "classification", "decimal comma"),
        ([0.0, 1.0] * 3, "regression", "could be class numbers"),
        ([1.0, 2.0, 4.0] * 3, "regression", "could be class numbers"),
        (list(range(18, 68)) * 4, "classification", "they are amounts"),
        (["red+big", "red", "big", "big+old"] * 3, "classification", "separated by '+'"),
        (["red_shirt", "blue_shirt", "red_hat", "blue_hat", "red_bag", "blue_bag", "bag_hat",
          "hat_shirt"] * 3, "classification", "separated by '_'"),
        (["['red', 'big']", "['red']"] * 3, "classification", "lists that were written as text"),
        (["ant", "a\u200bnt", "bee"] * 3, "classification", "several spellings"),
        (["ant", "bee", "NA"] * 3, "classification", "could stand for a missing label"),
        (["1", "2", "?"] * 3, "classification", "'?' could stand for a missing label"),
        ([str(age) for age in range(18, 68)] * 4, "classification", "they are amounts"),
        ([3, 8, 100, 20, 5, 41, 66, 70, 75, 80, 91] * 20, "classification", "gaps"),
    ],
)  # fmt: skip
def test_doubtful_labels_are_named(labels: list, kind: str, words: str) -> None:
    assert read_labels(labels).kind == kind
    assert words in doubt(labels)
    assert all(reading.override for reading in read_labels(labels).readings)


@pytest.mark.parametrize(
    "labels",
    [
        ["ant", "bee"] * 5,
        ["apple pie", "apple", "ice cream", "pie"] * 3,
        ["Washington, D.C.", "Paris", "London"] * 3,
        list(range(100)) * 2,
        [1, 2, 3] * 5,
        [10, 20, 30] * 20,
        [True, False] * 3,
        [0.5 + number / 7 for number in range(30)],
        ["001", "002", "010"] * 3,
        [str(digit) for digit in range(10)] * 2,
        ["great_dane", "great_pyrenees", "pug", "blue_heeler"] * 3,
    ],
)
def test_clear_labels_have_no_doubts(labels: list) -> None:
    assert not read_labels(labels).readings


def test_text_is_kept_as_text() -> None:
    assert read_labels(["001", "01", "1"] * 2).names == ("001", "01", "1")
    assert read_labels(["1_2", "12"] * 2).names == ("12", "1_2")
    assert read_labels([" Ant", "ant"] * 2).names == (" Ant", "ant")


def test_a_given_task_or_classes_leave_no_doubt_about_it() -> None:
    ages = list(range(18, 68)) * 2
    assert not doubt(ages, task="regression")
    assert not doubt(ages, task="classification")
    assert not doubt([0.0, 1.0] * 3, task="classification")
    assert not doubt(["red;round", "red"] * 3, sep=";")
    assert not doubt([3, 7] * 3, classes=["3", "7"])


def test_decimals_are_amounts() -> None:
    targets = read_labels([Decimal("1.5"), Decimal("2.25"), Decimal("1.5")])
    assert (targets.kind, targets.values.tolist()) == ("regression", [1.5, 2.25, 1.5])


def test_negative_whole_numbers_are_amounts() -> None:
    targets = read_labels([-20, -3, 4, 11])
    assert (targets.kind, targets.values.tolist()) == ("regression", [-20, -3, 4, 11])
    assert read_labels([-1, 1, -1, 1]).kind == "classification"


def test_decimal_commas_are_named_in_a_regression() -> None:
    with pytest.raises(InputError, match=r"'1,5' has a decimal comma.*decimal points"):
        read_labels(["1,5", "2,0"], task="regression")
