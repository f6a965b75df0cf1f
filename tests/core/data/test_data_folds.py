"""``Data.folds``: every train and valid sample is held out once; test is never touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flambeau import Split, TensorData
from flambeau.errors import ArgumentError, InputError, SplitError

N = 60
X = torch.arange(N).float().unsqueeze(1)
Y = torch.arange(N) % 3


def data(**more: object) -> TensorData:
    return TensorData.from_tensors(X, Y, valid=0.2, test=0.1, calibration=0.1, **more)


def inputs(each: TensorData, part: str) -> list[int]:
    return [int(value) for value in each.raw(part)]


def test_each_train_and_valid_row_is_held_out_once() -> None:
    whole = data()
    folds = whole.folds(4, seed=3)
    used = np.sort(np.concatenate([whole.split.train, whole.split.valid]))
    held_out = np.sort(np.concatenate([each.split.valid for each in folds]))
    assert held_out.tolist() == used.tolist()
    for each in folds:
        assert sorted([*each.split.train, *each.split.valid]) == used.tolist()
        assert len(each.split.test) == len(each.split.calibration) == 0
        # The rows have the values of their numbers, in whichever part they were before.
        assert inputs(each, "train") == each.split.train.tolist()
        assert inputs(each, "valid") == each.split.valid.tolist()
        counts = np.bincount(Y.numpy()[each.split.valid])
        assert counts.max() - counts.min() <= 1


def test_the_folds_are_those_of_the_split_of_these_rows() -> None:
    whole = data()
    rows = np.sort(np.concatenate([whole.split.train, whole.split.valid]))
    expected = Split.folds(len(rows), 4, stratify=Y.numpy()[rows], seed=3)
    for each, found in zip(expected, whole.folds(4, seed=3), strict=True):
        assert found.split.train.tolist() == rows[each.train].tolist()
        assert found.split.valid.tolist() == rows[each.valid].tolist()


def test_separate_parts_weights_and_task_inputs_stay_with_their_rows() -> None:
    pair = (X[:5] + 100, Y[:5])
    weights = torch.arange(N).float() + 1
    whole = TensorData.from_tensors(X, Y, valid=pair, sample_weight=weights)
    for each in whole.folds(3):
        for part in ("train", "valid"):
            dataset = each.dataset(part, whole.preprocessor({}), {})
            assert dataset.sample_weight is not None
            value = dataset.inputs["input"].flatten()
            expected = torch.where(value >= 100, 1.0, value + 1)
            assert torch.equal(dataset.sample_weight, expected)
            assert torch.equal(dataset.ids, torch.tensor(each.split.part(part)))


def test_given_splits_are_used_as_they_are() -> None:
    whole = data()
    one, other = whole.split.train[:5], whole.split.train[5:9]
    splits = [Split.from_indices(other, one), Split.from_indices(one, other)]
    found = whole.folds(splits)
    assert [each.split.valid.tolist() for each in found] == [one.tolist(), other.tolist()]


def test_the_only_row_of_a_class_is_always_in_train() -> None:
    labels = Y.clone()
    labels[7] = 3
    whole = TensorData.from_tensors(X, labels, valid=0.2)
    for each in whole.folds(4):
        assert 7 in each.split.train
        assert "as the only ones of their class: 1" in each.split.notes[-1]
    held_out = np.concatenate([each.split.valid for each in whole.folds(4)])
    assert sorted(held_out) == [row for row in range(N) if row != 7]


@pytest.mark.parametrize(
    ("splits", "error", "message"),
    [
        (lambda s: [Split.from_indices(s.train[:5], s.test)], SplitError, "not among the 48 train"),
        (lambda s: [Split.from_indices(s.train[:5], s.calibration)], SplitError, "calibration"),
        (lambda s: [Split.from_indices(s.train[:5])], SplitError, "has no validation rows"),
        (lambda s: [Split.from_indices(s.train[:5], s.valid)] * 2, SplitError, "Several folds"),
        (lambda s: [], ArgumentError, "number of folds, or a list"),
        (lambda s: "five", ArgumentError, "number of folds, or a list"),
        (lambda s: 2.5, ArgumentError, "number of folds as an int"),
        (lambda s: 1, SplitError, "at least 2"),
    ],
)
def test_wrong_folds_are_refused(splits, error, message) -> None:
    whole = data()
    with pytest.raises(error, match=message):
        whole.folds(splits(whole.split))


def test_data_that_cannot_be_split_anew_are_refused() -> None:
    pairs = torch.utils.data.TensorDataset(X, Y)
    loader = torch.utils.data.DataLoader(pairs, batch_size=4, shuffle=True)
    valid = torch.utils.data.DataLoader(pairs, batch_size=4)
    with pytest.raises(InputError, match="UserData cannot be split anew"):
        TensorData.from_loaders(loader, valid).folds(3)
