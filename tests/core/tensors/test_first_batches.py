"""A part that differs from train in its fields is found before the first step."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from flambeau import Batch, TensorData
from flambeau.errors import InputError

X = torch.randn(12, 3)
Y = torch.arange(12) % 2


def samples(**fields: Any) -> list[dict[str, Any]]:
    return [{name: value[row] for name, value in fields.items()} for row in range(12)]


def batches(**fields: Any) -> list[dict[str, Any]]:
    return [{name: value[:6] for name, value in fields.items()}] * 2


_NAMED: dict[str, Any] = {"inputs": ("image",), "targets": ("label",), "n_classes": 2}


@pytest.mark.parametrize("part", ["valid", "test", "calibration"])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": X, "labels": Y}, "no field 'label'. Did you mean 'labels'"),
        ({"img": X, "label": Y}, "no field 'image'"),
        ({"image": X[:, :, None], "label": Y}, "'image' has 2 dimensions per sample"),
        ({"image": X.long(), "label": Y}, "dtype int64, but that of train has 1 and float32"),
        ({"image": X, "label": Y.float()}, "'label' has 0 dimensions per sample and dtype float32"),
    ],
)
def test_other_fields_in_a_part_are_refused(part: str, fields: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"{part}.*{message}"):
        TensorData.from_datasets(samples(image=X, label=Y), **{part: samples(**fields)}, **_NAMED)
    with pytest.raises(InputError, match=rf"{part}.*{message}"):
        TensorData.from_loaders(batches(image=X, label=Y), **{part: batches(**fields)}, **_NAMED)


def test_other_tuples_in_a_part_are_refused() -> None:
    three = [(X[:6], X[:6], Y[:6])]
    with pytest.raises(InputError, match=r"valid.*tuples of 3"):
        TensorData.from_loaders([(X[:6], Y[:6])], three, n_classes=2)
    with pytest.raises(InputError, match="The valid targets are 'target_0', 'target_1', but"):
        TensorData.from_loaders([(X[:6], Y[:6])], three, n_inputs=1, n_classes=2)


def test_a_test_part_may_lack_targets() -> None:
    test = [Batch({"input": X[:6]})]
    train = [Batch({"input": X[:6]}, {"target": Y[:6]})]
    data = TensorData.from_loaders(train, train, test, n_classes=2)
    assert len(data.raw("test")) == 6
    with pytest.raises(InputError, match="The valid targets are none"):
        TensorData.from_loaders(train, test, n_classes=2)


class Counting:
    """A loader that counts how often it is started, and draws random numbers."""

    def __init__(self) -> None:
        self.starts = 0

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Any]:
        self.starts += 1
        for _ in range(2):
            yield X[:6] + np.random.rand(), Y[:6]


def test_reading_a_first_batch_changes_no_generator() -> None:
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    valid = Counting()
    TensorData.from_loaders(DataLoader(list(zip(X, Y, strict=True)), 6, True), valid, n_classes=2)
    assert valid.starts == 1
    assert np.array_equal(np.random.get_state()[1], states[0])
    assert torch.equal(torch.get_rng_state(), states[1])


def test_weights_in_a_tuple_are_told_of_batch() -> None:
    weighted = [(X[:6], Y[:6], torch.ones(6))]
    with pytest.raises(InputError, match=r"tuples of 3.*sample_weight=w"):
        TensorData.from_loaders(weighted)
    data = TensorData.from_loaders(weighted, n_inputs=1, n_classes=2)
    with pytest.raises(InputError, match=r"the data have 2.*sample_weight=w"):
        data.task_arguments(data.preprocessor({}), {"task": "classification"})
