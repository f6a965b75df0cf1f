"""Labels that are rows of numbers: one-hot, multi-hot, amounts, and one column."""

import numpy as np
import pytest
import torch

from flambeau.data.targets import read_labels
from flambeau.errors import InputError

INDICES = [2, 0, 1, 2, 1, 0]
ONE_HOT = np.eye(3, dtype=np.int64)[INDICES]
MULTI_HOT = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])


@pytest.mark.parametrize(
    "labels",
    [
        ONE_HOT,
        ONE_HOT.astype(np.float64),
        ONE_HOT.astype(bool),
        torch.tensor(ONE_HOT),
        ONE_HOT.tolist(),
        list(ONE_HOT.astype(np.float32)),
        [torch.tensor(row) for row in ONE_HOT],
    ],
)
def test_one_hot_rows_are_classes(labels: object) -> None:
    targets = read_labels(labels)  # pyright: ignore[reportArgumentType]
    assert (targets.kind, targets.names) == ("classification", ("0", "1", "2"))
    assert targets.values.tolist() == INDICES
    named = read_labels(labels, classes=["ant", "bee", "cow"])  # pyright: ignore[reportArgumentType]
    assert named.text(0) == "cow"
    [reading] = targets.readings
    assert reading.confidence >= 0.5
    assert "multi_label" in reading.alternatives


@pytest.mark.parametrize("labels", [MULTI_HOT, MULTI_HOT.astype(np.float32), MULTI_HOT.tolist()])
def test_multi_hot_columns_are_the_labels(labels: object) -> None:
    targets = read_labels(labels)  # pyright: ignore[reportArgumentType]
    assert (targets.kind, targets.names) == ("multi_label", ("0", "1", "2"))
    assert targets.values.tolist() == MULTI_HOT.tolist()
    assert targets.values.dtype == torch.float32
    assert targets.counts() == {"0": 2, "1": 2, "2": 2}


@pytest.mark.parametrize("labels", [np.array([[3], [1], [3]]), torch.tensor([[3], [1], [3]])])
def test_one_column_is_read_as_one_label_per_row(labels: object) -> None:
    targets = read_labels(labels)  # pyright: ignore[reportArgumentType]
    assert (targets.kind, targets.names) == ("classification", ("1", "3"))
    assert targets.values.tolist() == [1, 0, 1]
    assert read_labels(np.array([[0.5], [2.0]])).values.shape == (2,)


def test_columns_of_a_frame_name_the_classes() -> None:
    pandas = pytest.importorskip("pandas")
    words = pandas.Series(["bee", "ant", "bee", "cow"])
    targets = read_labels(pandas.get_dummies(words))
    assert (targets.kind, targets.names) == ("classification", ("ant", "bee", "cow"))
    assert [targets.text(row) for row in range(4)] == words.tolist()
    assert read_labels(words.to_frame()).names == ("ant", "bee", "cow")


def test_the_task_of_rows_can_be_given() -> None:
    assert read_labels(ONE_HOT, task="multi_label").values.tolist() == ONE_HOT.tolist()
    regression = read_labels(ONE_HOT, task="regression")
    assert (regression.kind, regression.values.shape) == ("regression", (6, 3))
    assert regression.readings == ()
    with pytest.raises(InputError, match=r"row 0 is \[1\.0, 0\.0, 1\.0\], but one-hot"):
        read_labels(MULTI_HOT, task="classification")


def test_names_have_to_match_the_columns() -> None:
    for labels in (ONE_HOT, MULTI_HOT):
        with pytest.raises(InputError, match="row of 3 columns, but there are 2 class names: a, b"):
            read_labels(labels, classes=["a", "b"])


def test_lists_of_tags_stay_tags() -> None:
    assert read_labels([[3, 5], [5]]).names == ("3", "5")
    assert read_labels([{0, 1}, {1}]).values.tolist() == [[1, 1], [0, 1]]
    assert read_labels([["x"], ["y"]]).kind == "multi_label"


@pytest.mark.parametrize(
    "labels",
    [
        np.vstack([np.eye(3)[[0, 1, 2] * 9], [[1, 1, 0]]]),  # one row is not one-hot
        np.full((4, 4), 0.25),  # probabilities
        np.array([[3, 1], [4, 1]]),  # whole numbers in an array: amounts or tags
    ],
)
def test_doubtful_rows_are_named(labels: np.ndarray) -> None:
    [reading] = read_labels(labels).readings
    assert reading.confidence < 0.5
    assert reading.override
