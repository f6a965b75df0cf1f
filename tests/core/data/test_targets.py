import datetime
from typing import Any

import numpy as np
import pytest
import torch

from flambeau.data.split import Split
from flambeau.data.targets import read_labels
from flambeau.errors import InputError, SplitError


@pytest.mark.parametrize(
    ("labels", "kind", "names", "values"),
    [
        (["b", "a", "b"], "classification", ("a", "b"), [1, 0, 1]),
        ([10, 9, 100], "classification", ("9", "10", "100"), [1, 0, 2]),
        (np.array([3, 1, 3], np.uint8), "classification", ("1", "3"), [1, 0, 1]),
        (torch.tensor([0, 2]), "classification", ("0", "2"), [0, 1]),
        ([True, False], "classification", ("False", "True"), [1, 0]),
        ([0.5, 2.0], "regression", ("value",), [0.5, 2.0]),
        ([(0.5, 1.0), (2.0, 3.0)], "regression", ("value_0", "value_1"), [[0.5, 1], [2, 3]]),
        ([["x", "y"], [], ["y"]], "multi_label", ("x", "y"), [[1, 1], [0, 0], [0, 1]]),
    ],
)
def test_the_task_follows_from_the_labels(labels, kind, names, values) -> None:
    targets = read_labels(labels)
    assert (targets.kind, targets.names) == (kind, names)
    assert targets.values.tolist() == values
    assert targets.values.dtype == (torch.int64 if kind == "classification" else torch.float32)


def test_tags_with_a_separator() -> None:
    targets = read_labels(["cat; dog", "dog", ""], sep=";")
    assert targets.kind == "multi_label"
    assert targets.names == ("cat", "dog")
    assert targets.values.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert [targets.text(row) for row in range(3)] == ["cat, dog", "dog", "(none)"]
    assert targets.counts() == {"cat": 1, "dog": 2}


def test_given_classes_keep_their_order() -> None:
    assert read_labels(["b", "a"], classes=["b", "a", "c"]).values.tolist() == [0, 1]
    by_index = read_labels([2, 0], classes=["ant", "bee", "cow"])
    assert by_index.values.tolist() == [2, 0]
    assert by_index.text(0) == "cow"
    with pytest.raises(InputError, match=r"row 1 is 'd', which is not one of the 2 classes: a, b"):
        read_labels(["a", "d"], classes=["a", "b"])
    with pytest.raises(InputError, match="row 0 is 3, which is not one of the 2 classes"):
        read_labels([3, 0], classes=["ant", "bee"])


def test_the_task_can_be_given() -> None:
    assert read_labels([1, 5, 9], task="regression").values.tolist() == [1.0, 5.0, 9.0]
    assert read_labels([1.0, 5.0], task="classification").names == ("1", "5")


def test_missing_values_of_pandas_are_named() -> None:
    pandas = pytest.importorskip("pandas")
    for missing in (pandas.NA, pandas.NaT):
        with pytest.raises(InputError, match="label of row 1 is missing"):
            read_labels(["x", missing])


@pytest.mark.parametrize("missing", [None, float("nan"), "", "  "])
def test_missing_labels_are_named(missing: object) -> None:
    with pytest.raises(InputError, match=r"label of row 1 \(b\.jpg\) is missing"):
        read_labels(["x", missing], sources=["a.jpg", "b.jpg"])


def test_labels_of_several_types_or_one_class_are_refused() -> None:
    with pytest.raises(InputError, match=r"several types: row 0 has 'a'; row 1 has 0\.5"):
        read_labels(["a", 0.5])
    with pytest.raises(InputError, match="All 3 labels are 'a'"):
        read_labels(["a"] * 3)
    with pytest.raises(InputError, match="row 1 is inf"):
        read_labels([0.0, float("inf")])
    with pytest.raises(InputError, match="some labels are not numbers"):
        read_labels([(0.1, 0.2), (0.3,)])


def test_labels_that_differ_in_outer_spaces_are_refused() -> None:
    with pytest.raises(InputError, match=r"' pos' \(.*1\) and 'pos' \(.*2\) differ only in white"):
        read_labels(["neg", " pos", "pos", "neg"])
    assert read_labels([" a b", "ab", "a b c"]).names == (" a b", "a b c", "ab")
    assert read_labels(["pos ", "pos"], classes=["pos ", "pos"]).values.tolist() == [0, 1]


def test_a_class_without_train_rows_is_named() -> None:
    targets = read_labels(["a", "a", "b", "c"])
    targets.check_split(Split.from_indices([0, 2, 3], [1]))
    with pytest.raises(SplitError, match="1 class has texts in test but none in train: c"):
        targets.check_split(Split.from_indices([0, 2], [1], [3]), "texts")
    with pytest.raises(SplitError, match="1 class has texts in valid but none in train: b"):
        targets.check_split(Split.from_indices([0, 3], [2], [1]), "texts")
    with pytest.raises(SplitError, match="in calibration but none in train: b"):
        targets.check_split(Split.from_indices([0, 3], [1], [], [2]))
    read_labels([0.5, 1.5]).check_split(Split.from_indices([0], [1]))


def test_rows_are_selected_in_their_order() -> None:
    targets = read_labels(["a", "b", "c"]).select(np.array([2, 0]))
    assert [targets.text(row) for row in range(2)] == ["c", "a"]
    assert targets.counts() == {"a": 1, "b": 0, "c": 1}
    assert read_labels([0.5, 1.5]).counts() == {}


def test_large_regression_targets_stay_distinct() -> None:
    labels = [1.7e9 + row for row in range(200)]
    targets = read_labels(labels)
    assert targets.kind == "regression"
    assert targets.values.tolist() == labels
    rows = read_labels([[label, 0.5] for label in labels])
    assert rows.values[:, 0].tolist() == labels
    assert read_labels([1e9, 2e9]).values.dtype == torch.float32


def test_labels_that_cannot_be_sorted_are_named() -> None:
    day = datetime.date(2020, 1, 1)
    with pytest.raises(InputError, match=r"row 0 has datetime.* of type date; row 2 has 1 of type"):
        read_labels([day, day, 1], task="classification")
    with pytest.raises(InputError, match=r"row 0 has \{'a': 1\} of type dict"):
        read_labels([{"a": 1}, {"a": 2}])


@pytest.mark.parametrize("task", [None, "classification", "regression"])
def test_an_integer_that_no_number_type_holds_is_named(task: Any) -> None:
    with pytest.raises(InputError, match=r"label of row 1 is an integer of 16,610 bits"):
        read_labels([1, 10**5000], task=task)


def test_bytes_and_scalar_tensors_are_labels() -> None:
    assert read_labels([b"cat", b"dog"]).names == ("cat", "dog")
    assert read_labels(np.array([b"cat", b"dog"])).names == ("cat", "dog")
    targets = read_labels([torch.tensor(3), torch.tensor(1), torch.tensor(3)])
    assert (targets.names, targets.values.tolist()) == (("1", "3"), [1, 0, 1])
    assert read_labels([torch.tensor(0.5), torch.tensor(2.0)]).values.tolist() == [0.5, 2.0]


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        ([1, True, 0], None),
        ([1, "1", 2], None),
        ([True, "True", False], None),
        (["1", 1.0], "classification"),
        ([1.0, True, 2.0], "classification"),
    ],
)
def test_one_label_in_two_types_is_refused_in_any_order(labels: list, task: Any) -> None:
    for order in (labels, labels[::-1]):
        with pytest.raises(InputError, match=r"several types.*row \d has .* of type"):
            read_labels(order, task=task)
    assert read_labels([1, "a", 1]).names == ("1", "a")
    assert read_labels([1, 1.0, 2], task="classification").names == ("1", "2")
    assert read_labels(["1", 1, "2"], classes=["1", "2"]).values.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        ([["a", None], ["b"]], None, "row 0 are .* missing.*empty list"),
        ([["a"], ["b", float("nan")]], None, "row 1 are .* missing"),
        ([["a"], [""]], None, "row 1 are .* missing"),
        ([[1, None], [0, 1]], None, "row 0 are .* missing"),
        ([[["a"]], [["b"]]], None, "row 0 are .* contains a list"),
        ([[10**400, 1], [1, 2]], None, "row 0 is an integer of 1,329 bits"),
        ([[1], [10**400]], "regression", "row 1 is an integer of 1,329 bits"),
        (np.array([[10**400, 1]], dtype=object), None, "row 0 is an integer of 1,329 bits"),
        ([[], []], "regression", "rows without numbers"),
        (np.zeros((3, 0)), "regression", "rows without numbers"),
        (3, None, "labels are 3 of type int"),
        ("abc", None, "labels are 'abc' of type str"),
        (np.array(1), None, "one label per sample"),
        (torch.tensor(1), None, "one label per sample"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(labels: Any, task: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_labels(labels, task=task)


def test_tensors_and_bytes_in_a_row_are_read_as_their_values() -> None:
    rows = read_labels([torch.tensor([1, 2]), torch.tensor([3])])
    assert rows.names == ("1", "2", "3")
    assert read_labels([[torch.tensor(1)], [torch.tensor(2)]]).names == ("1", "2")
    assert read_labels([[b"a"], ["b", b"c"]]).names == ("a", "b", "c")
    half = torch.tensor([[1.5, 2], [1, 0]], dtype=torch.bfloat16)
    assert read_labels(half).values.tolist() == [[1.5, 2.0], [1.0, 0.0]]
    assert read_labels(list(half)).values.tolist() == [[1.5, 2.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("classes", "dtype"), [(2, torch.int8), (127, torch.int8), (128, torch.int16)]
)
def test_class_numbers_of_a_small_type_are_wide_when_they_are_used(classes: int, dtype) -> None:
    labels = [f"{number:03}" for number in range(classes)] * 2
    wide = read_labels(labels)
    small = wide.compact()
    assert small.values.dtype == dtype
    rows = np.array([classes, 1, 0])
    assert torch.equal(small.of(rows), wide.values[torch.from_numpy(rows)])
    assert small.of(rows).dtype == torch.int64
    assert small.counts() == wide.counts()
    assert small.text(classes - 1) == labels[classes - 1]
    numbers = read_labels([0.5, 1.5])
    assert numbers.compact() is numbers
