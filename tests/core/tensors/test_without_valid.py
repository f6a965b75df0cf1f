"""Training on all rows, without a validation part."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from flambeau import Data, Learner, Split, TensorData, TrainingOptions
from flambeau.errors import FlambeauError, InputError, SplitError

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 2
PAIRS = TensorDataset(X, Y)

MAKES: dict[str, Callable[[], Data]] = {
    "0": lambda: TensorData.from_tensors(X, Y, valid=0),
    "0.0": lambda: TensorData.from_tensors(X, Y, valid=0.0),
    "none": lambda: TensorData.from_tensors(X, Y, valid=None),
    "split": lambda: TensorData.from_tensors(X, Y, split=Split.from_indices(np.arange(40))),
    "test given": lambda: TensorData.from_tensors(X, Y, valid=0, test=(X[:4], Y[:4])),
    "data set": lambda: TensorData.from_datasets(PAIRS, n_classes=2),
    "map-style": lambda: TensorData.from_datasets(list(zip(X, Y, strict=True)), n_classes=2),
    "loader": lambda: TensorData.from_loaders(DataLoader(PAIRS, 8, shuffle=True), n_classes=2),
}


@pytest.mark.parametrize("kind", MAKES)
def test_all_rows_are_trained_on(kind: str) -> None:
    data = MAKES[kind]()
    assert sorted(data.split.train.tolist()) == list(range(40))
    assert not len(data.split.valid)
    options = TrainingOptions(doctor=False)
    learner = Learner(data, nn.Linear(4, 2), training=options, quiet=True)
    rows = learner.fit(2, lr=1e-2).rows
    assert len(rows) == 2
    assert not [name for name in rows[-1] if name.startswith("valid_")]
    with pytest.raises(InputError, match="The data have no valid samples"):
        learner.evaluate()
    assert learner.evaluate("train")["loss"] > 0


@pytest.mark.parametrize("column", ["valid_loss", "valid_accuracy"])
def test_a_score_of_the_missing_part_cannot_select(column: str) -> None:
    options: Any = TrainingOptions(doctor=False, keep_best=column)
    learner = Learner(MAKES["0"](), nn.Linear(4, 2), training=options, quiet=True)
    with pytest.raises(FlambeauError, match=f"'{column}', but the data have no valid part"):
        learner.fit(1)
    assert not learner.history.rows


def test_a_test_part_alone_is_drawn() -> None:
    data = TensorData.from_tensors(X, Y, valid=0, test=0.25)
    assert (len(data.split.train), len(data.split.valid), len(data.split.test)) == (30, 0, 10)


def test_empty_rows_are_no_request_for_none() -> None:
    with pytest.raises(SplitError, match=r"valid part has no rows.*valid=None"):
        Split.from_indices([0, 1], [])
    with pytest.raises(SplitError, match="train part has no rows"):
        Split.from_indices([], [0])
