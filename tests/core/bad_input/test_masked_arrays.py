"""NumPy masked arrays: torch would use the values under the mask."""

from typing import Any

import numpy as np
import pytest
from torch import nn

from flambeau import Learner, TensorData
from flambeau.data.targets import read_labels
from flambeau.errors import InputError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(20, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64)


def masked(array: Any, *rows: int) -> Any:
    found = np.ma.masked_array(array.copy())
    found[list(rows)] = np.ma.masked
    return found


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TensorData.from_tensors(masked(X, 4), Y), r"'input' is a .* 3 masked .*\(4, 0\)"),
        (lambda: TensorData.from_tensors(X, masked(Y, 2, 5)), r"'target' is a .* 2 masked"),
        (
            lambda: TensorData.from_tensors(X, Y, sample_weight=masked(X[:, 0] ** 2, 1)),
            "'sample_weight' is a masked array with 1 masked",
        ),
        (
            lambda: Learner(
                TensorData.from_datasets(list(zip(masked(X, 3), Y, strict=True)), [(X[0], Y[0])]),
                nn.Linear(3, 2),
                quiet=True,
            ).fit(1),
            "sample at position 3 is a masked array with 3",
        ),
        (
            lambda: Learner(
                TensorData.from_loaders([(masked(X, 3), Y)] * 2, [(X, Y)]), nn.Linear(3, 2)
            ),
            "'input' of a batch is a masked array",
        ),
        (lambda: read_labels(masked(Y, 6)), r"array of labels is a .* \(the first at \(6,\)\)"),
    ],
)
def test_masked_entries_are_refused(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_predict_refuses_masked_rows() -> None:
    one = Learner(TensorData.from_tensors(X, Y, valid=0.2), nn.Linear(3, 2), quiet=True)
    with pytest.raises(InputError, match=r"Item 1.* for 'input' is a masked array with 3 masked"):
        one.predict(masked(X[:3], 1))


def test_an_array_without_masked_entries_is_accepted() -> None:
    data = TensorData.from_tensors(np.ma.masked_array(X), np.ma.masked_array(Y), valid=0.2)
    assert Learner(data, nn.Linear(3, 2), quiet=True).evaluate()["loss"] > 0
