"""The calibration part of a split: never trained on, never used to choose a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from flambeau import Learner, TensorData
from flambeau.data.split import Split
from flambeau.errors import InputError, ResumeError

DRAW = torch.Generator().manual_seed(0)
X = torch.randn(100, 4, generator=DRAW)
Y = (X[:, 0] > 0).long()


def learner(data: TensorData, **arguments) -> Learner:
    torch.manual_seed(0)
    net = nn.Linear(4, 2)
    values = {"batch_size": 16, "lr": 0.1, "normalisation": "standard", "probe": "off"}
    return Learner(data, net, choices=values, quiet=True, **arguments)


def test_calibration_rows_change_neither_the_weights_nor_the_scores() -> None:
    split = Split.random(100, 0.2, 0.1, stratify=Y, calibration=0.2)
    weights, histories = [], []
    for seed in (1, 2):
        x, y = X.clone(), Y.clone()
        draw = torch.Generator().manual_seed(seed)
        rows = torch.from_numpy(split.calibration)
        x[rows] = 100 * torch.randn(len(rows), 4, generator=draw)
        y[rows] = torch.randint(2, (len(rows),), generator=draw)
        made = learner(TensorData.from_tensors(x, y, split=split))
        rows_of_history = made.fit(3).rows
        histories.append([{**row, "seconds": 0} for row in rows_of_history])
        weights.append(made.model.weight.detach().clone())
        facts = made.data.facts()
        assert facts["n_calibration"] == 20
        assert sum(facts["class_counts"]) == facts["n_train"] == 50
    assert torch.equal(*weights)
    assert histories[0] == histories[1]


def test_every_source_of_tensors_has_the_part(tmp_path: Path) -> None:
    pair, rows = TensorDataset(X, Y), np.arange(100)
    held_out = TensorDataset(X[70:80], Y[70:80]), TensorDataset(X[80:], Y[80:])
    made = {
        "share": TensorData.from_tensors(X, Y, calibration=0.2),
        "arrays": TensorData.from_tensors(
            X[:70], Y[:70], valid=(X[70:80], Y[70:80]), calibration=(X[80:], Y[80:])
        ),
        "split": TensorData.from_tensors(
            X, Y, split=Split.from_indices(rows[:70], rows[70:80], (), rows[80:])
        ),
        "datasets": TensorData.from_datasets(
            TensorDataset(X[:70], Y[:70]), held_out[0], calibration=held_out[1]
        ),
        "map": TensorData.from_datasets(
            Subset(pair, range(70)),
            Subset(pair, range(70, 80)),
            calibration=Subset(pair, range(80, 100)),
            n_classes=2,
        ),
        "loaders": TensorData.from_loaders(
            DataLoader(TensorDataset(X[:70], Y[:70]), 8, shuffle=True),
            DataLoader(held_out[0], 8),
            calibration=DataLoader(held_out[1], 8),
            n_classes=2,
        ),
    }
    for name, data in made.items():
        choices = {"task": "classification"}
        made_by = Learner(data, nn.Linear(4, 2), quiet=True, choices=choices)
        batches = list(made_by.built.batches("calibration"))
        assert sum(map(len, batches)) == 20, name
        if name != "loaders":  # which number the samples of each loader from 0
            seen = {int(i) for batch in batches for i in batch.indices}
            assert seen == set(data.split.calibration.tolist()), name
        assert "20 calibration" in data.split.describe()
        assert "20 calibration" in str(made_by.plan["split"].reason)
        assert len(data.raw("calibration")) == 20
        if name != "share":
            inputs = torch.cat([next(iter(b.inputs.values())) for b in batches])
            assert torch.equal(inputs, X[80:]), name


def test_a_size_is_drawn_from_train_beside_separate_samples() -> None:
    n = len(X)
    data = TensorData.from_tensors(X, Y, valid=(X, Y), calibration=0.25)
    assert len(data.split.train) + len(data.split.calibration) == n
    assert len(data.split.calibration) == round(n / 4)
    assert data.split.valid.tolist() == list(range(n, 2 * n))
    other = TensorData.from_tensors(X, Y, calibration=(X, Y), valid=0.25)
    assert other.split.calibration.tolist() == list(range(n, 2 * n))
    assert len(other.split.valid) == round(n / 4)


def test_an_absent_part_says_how_to_make_one() -> None:
    data = TensorData.from_tensors(X, Y)
    with pytest.raises(InputError, match=r"no calibration samples.*calibration=0\.2"):
        Learner(data, quiet=True).evaluate("calibration")
    with pytest.raises(InputError, match="no calibration part"):
        data.raw("calibration")


def test_copies_of_train_rows_in_calibration_are_reported_and_found() -> None:
    x = torch.cat([X, X[:20]])
    y = torch.cat([Y, Y[:20]])
    rows = np.arange(120)
    split = Split.from_indices(rows[:80], rows[80:100], (), rows[100:])
    data = TensorData.from_tensors(x, y, split=split)
    assert "calibration rows with the inputs of a train row: 20" in data.report()
    found = Learner(data, quiet=True).doctor()
    [copies] = [f for f in found.findings if f.code == "duplicates-across-parts"]
    assert "20 of 20 calibration rows" in str(copies)


def test_subset_and_fingerprint_follow_the_part(tmp_path: Path) -> None:
    data = TensorData.from_tensors(X, Y, calibration=0.2)
    rows = {part: data.split.part(part)[:7].tolist() for part in ("train", "valid", "calibration")}
    some = data.subset(rows)
    assert some.split.calibration.tolist() == rows["calibration"]
    assert len(some.raw("calibration")) == 7
    others = {**rows, "calibration": data.split.calibration[1:8].tolist()}
    assert some.fingerprint() != data.subset(others).fingerprint()


def test_a_run_is_not_resumed_with_another_calibration_part(tmp_path: Path) -> None:
    data = TensorData.from_tensors(X, Y, calibration=0.2)
    learner(data, folder=tmp_path).fit(1)
    moved = replace(data.split, calibration=data.split.calibration[::-1])
    other = learner(TensorData.from_tensors(X, Y, split=moved), folder=tmp_path)
    with pytest.raises(ResumeError, match="calibration rows: 20"):
        other.resume()
