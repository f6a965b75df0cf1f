"""Names with an order: a dict gives the numbers, a set is refused; every face reads them alike."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from flambeau import Classification, MultiLabel, Regression, TensorData
from flambeau.data.ordered_names import ordered_names
from flambeau.data.targets import read_labels
from flambeau.errors import ArgumentError, InputError

_PAIRS = TensorDataset(torch.randn(12, 2), torch.arange(12) % 3)
_LABELS = ["cat", "ant", "bee"] * 4

_READERS: dict[str, Callable[[object], object]] = {
    "from_tensors": lambda names: TensorData.from_tensors(
        *_PAIRS.tensors, class_names=names
    ).facts()["class_names"],
    "from_datasets": lambda names: TensorData.from_datasets(_PAIRS, class_names=names).facts()[
        "class_names"
    ],
    "from_loaders": lambda names: TensorData.from_loaders(
        [_PAIRS.tensors], class_names=names
    ).facts()["class_names"],
    "text": lambda names: TensorData.from_tensors(
        _PAIRS.tensors[0], _LABELS, class_names=names
    ).facts()["class_names"],
    "read_labels": lambda names: read_labels(_LABELS, classes=names).names,
    "Classification": lambda names: Classification(names).classes,
    "MultiLabel": lambda names: MultiLabel(names).classes,
    "Regression": lambda names: Regression(names).names,
}


@pytest.mark.parametrize("read", _READERS.values(), ids=_READERS)
def test_a_set_of_names_is_refused(read: Callable[[object], object]) -> None:
    for names in ({"ant", "bee", "cat"}, frozenset({"ant", "bee", "cat"})):
        with pytest.raises(ArgumentError, match="no order"):
            read(names)


@pytest.mark.parametrize("read", _READERS.values(), ids=_READERS)
def test_a_dict_numbers_the_names_either_way(read: Callable[[object], object]) -> None:
    for names in ({0: "cat", 2: "bee", 1: "ant"}, {"bee": 2, "cat": 0, "ant": 1}):
        assert tuple(read(names)) == ("cat", "ant", "bee")


@pytest.mark.parametrize(
    "names",
    [{"a": 1, "b": 2}, {"a": 0, "b": 0}, {1: 0, 0: 1}, {"a": False, "b": True}, {0.0: "a"}],
    ids=str,
)
def test_a_dict_that_does_not_number_is_refused(names: object) -> None:
    with pytest.raises(InputError, match="must number"):
        ordered_names(names, "class_names")


@pytest.mark.parametrize("names", [["a", "b", "a"], ["a", None], ["a", float("nan")], ["1", 1]])
def test_ambiguous_and_missing_names_are_refused(names: object) -> None:
    with pytest.raises(InputError, match=r"distinct names|a name"):
        TensorData.from_tensors(*_PAIRS.tensors, class_names=names)


@pytest.mark.parametrize("names", [3, np.array("a"), np.eye(2), "abc", b"abc"], ids=repr)
def test_one_value_is_not_a_list_of_names(names: object) -> None:
    with pytest.raises(ArgumentError, match="list with one name"):
        ordered_names(names, "class_names")


def test_other_sequences_keep_their_order() -> None:
    expected = ("2", "0", "1")
    for names in ([2, 0, 1], np.array([2, 0, 1]), torch.tensor([2, 0, 1]), iter("201")):
        assert ordered_names(names, "class_names") == expected
    assert ordered_names({"b": 5, "a": 7}.keys(), "class_names") == ("b", "a")


@pytest.mark.parametrize("names", [{"a", "b"}, frozenset("ab")], ids=["set", "frozenset"])
def test_a_set_of_inputs_is_refused(names: object) -> None:
    rows = [{"a": 1.0, "b": 2.0, "y": 0}] * 12
    with pytest.raises(ArgumentError, match="no order"):
        TensorData.from_datasets(rows, inputs=names, targets=("y",))


@pytest.mark.parametrize("count", [0, -1, 1, True, 2.5, "3", float("nan")], ids=repr)
def test_an_impossible_number_of_classes_is_refused(count: object) -> None:
    with pytest.raises((ArgumentError, InputError), match="n_classes must be"):
        TensorData.from_datasets(_PAIRS, n_classes=count)


def test_ordered_categoricals_keep_their_order() -> None:
    pandas = pytest.importorskip("pandas")
    sizes = ["low", "mid", "high", "huge"]
    for labels in (
        pandas.Categorical(["high", "low", "mid"] * 4, sizes, ordered=True),
        pandas.Series(pandas.Categorical(["high", "low", "mid"] * 4, sizes, ordered=True)),
    ):
        read = read_labels(labels)
        assert read.names == ("low", "mid", "high")  # without the category that no row has
        assert read.values[:3].tolist() == [2, 0, 1]
        data = TensorData.from_tensors(_PAIRS.tensors[0], labels, valid=0)
        assert data.facts()["class_names"] == ["low", "mid", "high"]
        assert data.dataset("train", None, {}).targets["target"][:3].tolist() == [2, 0, 1]
    unordered = pandas.Series(pandas.Categorical(["high", "low", "mid"] * 4, sizes))
    assert read_labels(unordered).names == ("high", "low", "mid")
    numbers = pandas.Series(pandas.Categorical([1.5, 0.5, 2.5] * 4, [2.5, 0.5, 1.5], ordered=True))
    assert read_labels(numbers).names == ("2.5", "0.5", "1.5")
    assert read_labels(numbers, task="regression").kind == "regression"
