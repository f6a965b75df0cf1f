"""from_tensors takes lists and columns of a table, and a subclass keeps its class."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from flambeau import Split, TensorData
from flambeau.data.memory_loader import MemoryDataset
from flambeau.errors import ArgumentError, InputError

X = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
Y = np.arange(12) % 2
NAMES = ["ant" if y else "bee" for y in Y]
SPLIT = Split.from_indices(np.arange(8), np.arange(8, 12))


def train(data: TensorData) -> tuple[Tensor, Tensor]:
    part: MemoryDataset = data.dataset("train", data.preprocessor({}), {"task": "classification"})
    return part.inputs["input"], part.targets["target"]


@pytest.mark.parametrize(
    "x", [X.tolist(), list(X), [list(map(float, row)) for row in X], list(torch.tensor(X))]
)
@pytest.mark.parametrize(
    "y",
    [
        Y.tolist(),
        list(Y),
        list(torch.tensor(Y)),
        pd.Series(Y),
        pd.Series(Y, dtype="Int64"),
        pd.Series(Y.astype(bool)),
    ],
)
def test_lists_and_series_equal_arrays(x: Any, y: Any) -> None:
    inputs, targets = train(TensorData.from_tensors(x, y, split=SPLIT))
    assert torch.equal(inputs, torch.tensor(X[:8]))
    assert inputs.dtype == torch.float32
    assert torch.equal(targets, torch.tensor(Y[:8]))


@pytest.mark.parametrize(
    "names",
    [NAMES, np.array(NAMES), pd.Series(NAMES), pd.Series(NAMES).astype("category"), tuple(NAMES)],
)
def test_names_become_classes(names: Any) -> None:
    if isinstance(names, tuple):
        with pytest.raises(ArgumentError, match="'target' is a tuple, not a tensor"):
            TensorData.from_tensors(X, names)
        return
    data = TensorData.from_tensors(X, names, split=SPLIT)
    assert data.facts()["class_names"] == ["ant", "bee"]
    assert torch.equal(train(data)[1], torch.tensor(1 - Y[:8]))


def test_lists_by_name_as_weights_and_as_a_part() -> None:
    data = TensorData.from_tensors(
        {"a": X.tolist(), "b": pd.Series(X[:, 0])},
        Y.tolist(),
        valid=({"a": X.tolist(), "b": X[:, 0].tolist()}, NAMES and Y.tolist()),
        sample_weight=[1.0] * 12,
    )
    assert (len(data.split.train), len(data.split.valid)) == (12, 12)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1.0, 2.0], [1.0]], r"rows of the list 'input' cannot be stacked: shapes \(2,\), \(1,\)"),
        ([torch.zeros(2), torch.zeros(3)], r"cannot be stacked: shapes \(2,\), \(3,\)"),
        (pd.DataFrame(X), r"'input' is a DataFrame.*frame\[columns\]\.to_numpy\(\) for the inputs"),
        ((X, X), r"'input' is a tuple.*for several inputs give a dict"),
        ({1.0, 2.0}, "'input' is a set"),
    ],
)
def test_what_is_not_clear_is_refused(x: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        TensorData.from_tensors(x, Y)


def test_lists_with_gaps_are_refused() -> None:
    with pytest.raises(InputError, match="an empty list"):
        TensorData.from_tensors([], Y)
    with pytest.raises(InputError, match=r"\[1\] is None of type NoneType. Fill in"):
        TensorData.from_tensors([1.0, None, 2.0] * 4, Y)
    with pytest.raises(InputError, match="Fill in"):
        TensorData.from_tensors(X, pd.Series([0, None] * 6, dtype="Int64"))


class Sub(TensorData):
    """A subclass with a domain of its own."""

    domain = "somewhere.else:DOMAIN"


def test_a_subclass_keeps_its_class_and_domain() -> None:
    made = Sub.from_tensors(X, Y, split=SPLIT)
    pairs = TensorDataset(torch.tensor(X), torch.tensor(Y))
    for data in (made, made.subset({"train": [0, 1], "valid": [8]}), Sub.from_datasets(pairs)):
        assert type(data) is Sub
        assert data.domain == Sub.domain
    with pytest.raises(ArgumentError, match=r"Sub\.from_loaders cannot use a loader.*else:DOMAIN"):
        Sub.from_loaders(DataLoader(pairs, 4, shuffle=True))
    with pytest.raises(ArgumentError, match=r"Sub\.from_datasets cannot use a data set"):
        Sub.from_datasets(list(pairs))
