"""Differences of scores on the same samples, and their storage, against scikit-learn and loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from flambeau import Learner, MultiLabel, TensorData
from flambeau.errors import ArtefactError, InputError
from flambeau.report.score_differences import score_differences
from flambeau.report.stored_predictions import load_predictions, predictions_path

X = torch.randn(160, 4, generator=torch.Generator().manual_seed(0))


def trained(folder: Path, data: TensorData, lr: float, **more: Any) -> Any:
    choices = {"batch_size": 20, "probe": "off", "lr": lr}
    learner = Learner(data, choices=choices, quiet=True, **more)
    learner.fit(2)
    found = learner.interpret("valid")
    path = found.save(folder)
    assert path == predictions_path(folder, "valid")
    return found, load_predictions(path)


def test_multi_label_predictions_are_stored_and_compared(tmp_path: Path) -> None:
    labels = torch.stack([X[:, 0] > 0, X[:, 1] > 0.5, X[:, 2] + X[:, 3] > 0], dim=1)
    data = TensorData.from_tensors(X, labels, valid=60)
    task = MultiLabel(("a", "b", "c"))
    one, stored = trained(tmp_path / "a", data, 1e-3, task=task)
    other, stored_other = trained(tmp_path / "b", data, 0.05, task=MultiLabel(("a", "b", "c")))
    assert stored.predictions.scores == pytest.approx(one.predictions.scores)
    assert torch.equal(stored.predictions.ids, one.ids)
    found = {
        each.name: each
        for each in score_differences([stored.predictions], [stored_other.predictions])
    }
    targets = one.predictions.targets
    for name, average in (("micro_f1", "micro"), ("macro_f1", "macro")):
        values = [
            f1_score(targets, each.predicted, average=average, zero_division=0.0)
            for each in (one, other)
        ]
        assert (*found[name].first, *found[name].second) == pytest.approx(values)
        interval = found[name].interval
        assert interval is not None
        assert interval.value == pytest.approx(values[1] - values[0])
        assert interval.low <= interval.value <= interval.high


def test_weights_and_groups_count(tmp_path: Path) -> None:
    weights = torch.rand(160, generator=torch.Generator().manual_seed(1)) + 0.1
    y = (X[:, 0] > 0).long()
    data = TensorData.from_tensors(X, y, sample_weight=weights, valid=60)
    one, stored = trained(tmp_path / "a", data, 1e-3)
    other, stored_other = trained(tmp_path / "b", data, 0.05)
    pair = [stored.predictions], [stored_other.predictions]
    found = {each.name: each for each in score_differences(*pair)}
    own = one.predictions.weights
    correct = [(each.predicted == each.predictions.targets).double() for each in (one, other)]
    values = [float((each * own).sum() / own.sum()) for each in correct]
    assert (*found["accuracy"].first, *found["accuracy"].second) == pytest.approx(values)
    # With few groups the interval is wider than with independent samples, or equal by chance.
    groups = torch.arange(60) // 20
    grouped = {each.name: each for each in score_differences(*pair, groups=groups)}
    assert grouped["accuracy"].interval != found["accuracy"].interval
    # A single group has an unknown spread.
    single = score_differences(*pair, groups=torch.zeros(60, dtype=torch.int64))
    assert all(each.interval is None for each in single)


def test_several_models_of_a_side_are_averaged_on_each_resample(tmp_path: Path) -> None:
    data = TensorData.from_tensors(X, (X[:, 0] > 0).long(), valid=60)
    models = [
        trained(tmp_path / str(seed), data, 0.01, seed=seed)[1].predictions for seed in range(4)
    ]
    found = score_differences(models[:2], models[2:])
    loss = next(each for each in found if each.name == "loss")
    losses = [each.losses.numpy() for each in models]  # type: ignore[union-attr]
    rows = (losses[2] + losses[3] - losses[0] - losses[1]) / 2
    random = np.random.default_rng(0)
    means = [random.choice(rows, len(rows)).mean() for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert loss.interval is not None
    assert loss.interval.value == pytest.approx(rows.mean())
    width = high - low
    # The ends of a bootstrap of 1,000 resamples vary by about a twentieth of the width.
    assert loss.interval.low == pytest.approx(low, abs=0.15 * width)
    assert loss.interval.high == pytest.approx(high, abs=0.15 * width)


def test_other_samples_or_targets_are_refused(tmp_path: Path) -> None:
    y = (X[:, 0] > 0).long()
    _, one = trained(tmp_path / "a", TensorData.from_tensors(X, y, valid=60), 0.01)
    _, fewer = trained(tmp_path / "b", TensorData.from_tensors(X, y, valid=50), 0.01)
    _, other = trained(tmp_path / "c", TensorData.from_tensors(X, 1 - y, valid=60), 0.01)
    for wrong, why in ((fewer, "other samples"), (other, "other (targets|samples)")):
        with pytest.raises(InputError, match=why):
            score_differences([one.predictions], [wrong.predictions])


def test_a_file_that_is_not_of_predictions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions-valid.safetensors"
    for content in (b"", b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(ArtefactError, match="predictions-valid"):
            load_predictions(path)
    with pytest.raises(ArtefactError, match="predictions-test"):
        load_predictions(tmp_path / "predictions-test.safetensors")
