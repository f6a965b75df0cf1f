"""Data sets of one learner number their classes alike, however they declare the numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from flambeau import TensorData
from flambeau.data.class_numbering import class_numbering
from flambeau.errors import InputError


class Pairs(Dataset[Any]):
    """Two classes, declared in the manner of torchvision."""

    def __init__(self, **declared: object) -> None:
        vars(self).update(declared)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.randn(3), index % 2


class Wrapper(Pairs):
    """A data set that changes the samples of another one."""


def classes(*names: str) -> Pairs:
    return Pairs(classes=list(names))


def numbers(**of: int) -> Pairs:
    return Pairs(class_to_idx=of)


def loader(items: Dataset[Any]) -> DataLoader[Any]:
    return DataLoader(items, 4, shuffle=True)


_DIFFERENT: dict[str, tuple[Any, Any]] = {
    "classes": (classes("ant", "bee"), classes("bee", "ant")),
    "class_to_idx": (numbers(ant=0, bee=1), numbers(ant=1, bee=0)),
    "one of each": (classes("ant", "bee"), numbers(ant=1, bee=0)),
    "a missing class": (classes("ant", "bee"), classes("bee")),
    "another class": (classes("ant", "bee"), classes("ant", "cow")),
    "subsets": (Subset(classes("a", "b"), [0, 1]), Subset(classes("b", "a"), [0, 1])),
    "a wrapper": (classes("a", "b"), Wrapper(dataset=classes("b", "a"))),
    "concatenated": (ConcatDataset([classes("a", "b"), classes("b", "a")]), classes("a", "b")),
    "two declarations": (Pairs(classes=["a", "b"], class_to_idx={"a": 1, "b": 0}), classes("a")),
}


@pytest.mark.parametrize("pair", _DIFFERENT.values(), ids=_DIFFERENT)
@pytest.mark.parametrize("part", ["valid", "test", "calibration"])
def test_parts_that_number_classes_differently_are_refused(
    pair: tuple[Any, Any], part: str
) -> None:
    train, other = pair
    with pytest.raises(InputError, match="two meanings"):
        TensorData.from_datasets(train, **{part: other}, n_classes=2)


def test_loaders_of_such_data_sets_are_refused() -> None:
    train = loader(classes("ant", "bee"))
    with pytest.raises(InputError, match="those of train are 0: ant, 1: bee"):
        TensorData.from_loaders(train, DataLoader(classes("bee", "ant"), 4), n_classes=2)


def test_class_names_in_another_order_are_refused() -> None:
    make: list[Callable[..., Any]] = [
        lambda names: TensorData.from_datasets(classes("ant", "bee"), class_names=names),
        lambda names: TensorData.from_loaders(loader(classes("ant", "bee")), class_names=names),
    ]
    for create in make:
        with pytest.raises(InputError, match="two meanings"):
            create(["bee", "ant"])
        for names in (["ant", "bee"], ["Ameise", "Biene"]):  # the second are translations
            assert create(names).facts()["class_names"] == names


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        (classes("ant", "bee", "cow"), classes("ant", "bee")),
        (classes("ant", "bee"), numbers(bee=1, ant=0)),
        (classes("ant", "bee"), Pairs()),
        (classes("b", "a"), Wrapper(classes=["a", "b"], target_transform=lambda n: 1 - n)),
        (Pairs(classes=[3, 5]), Pairs(classes=[5, 3])),  # not names
    ],
    ids=["fewer", "same", "undeclared", "transformed targets", "not names"],
)
def test_numbers_that_agree_or_are_unknown_are_accepted(train: Pairs, valid: Pairs) -> None:
    assert TensorData.from_datasets(train, valid, n_classes=3).facts()["n_valid"] == 8


def test_a_class_with_several_names_has_its_first() -> None:
    several = Pairs(classes=[("tench", "fish")], class_to_idx={"tench": 0, "fish": 0})
    assert class_numbering(several, "train") == {0: "tench"}
