import math

import numpy as np
import pytest
import torch
from torch import Tensor

from flambeau.data.memory_loader import MemoryDataset
from flambeau.errors import InputError
from flambeau.report import (
    baseline_scores,
    logistic_regression_accuracy,
    majority_accuracy,
    ridge_predictions,
)
from flambeau.report import baselines as module
from flambeau.task import Classification, MultiLabel, Regression, Task

linear_model = pytest.importorskip("sklearn.linear_model")
LogisticRegression, Ridge = linear_model.LogisticRegression, linear_model.Ridge
metrics = pytest.importorskip("sklearn.metrics")
log_loss, r2_score = metrics.log_loss, metrics.r2_score
StandardScaler = pytest.importorskip("sklearn.preprocessing").StandardScaler


def blobs(n: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """uint8 images (n, 1, 6, 6) whose classes overlap; the first pixels are constant."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.rand(classes, 36, generator=torch.Generator().manual_seed(99)) * 60 + 90
    y = torch.randint(classes, (n,), generator=draw)
    x = (centres[y] + 45 * torch.randn(n, 36, generator=draw)).clamp(0, 255)
    x[:, :4] = 77
    return x.to(torch.uint8).reshape(n, 1, 6, 6), y


def flat(x: Tensor) -> np.ndarray:
    return x.reshape(len(x), -1).double().numpy()


def test_the_majority_class_is_that_of_train() -> None:
    assert majority_accuracy(torch.tensor([2, 2, 0, 1]), torch.tensor([0, 0, 0, 2])) == 0.25


@pytest.mark.parametrize("l2", [1.0, 30.0])
def test_logistic_regression_against_scikit_learn(l2: float) -> None:
    (x, y), (test_x, test_y) = blobs(400, 4, 0), blobs(300, 4, 1)
    scaler = StandardScaler().fit(flat(x))
    theirs = LogisticRegression(C=1 / l2, max_iter=2000, tol=1e-10)
    theirs.fit(scaler.transform(flat(x)), y.numpy())
    probabilities = theirs.predict_proba(scaler.transform(flat(test_x)))
    task = Classification(list("abcd"))
    found = baseline_scores(
        MemoryDataset({"x": x}, {"y": y}), MemoryDataset({"x": test_x}, {"y": test_y}), task, l2=l2
    )["logistic regression"]
    # Both minimise the same convex function; float32 limits the precision near its flat minimum.
    assert found["loss"] == pytest.approx(log_loss(test_y.numpy(), probabilities), rel=1e-3)
    expected = theirs.score(scaler.transform(flat(test_x)), test_y.numpy())
    assert found["accuracy"] == pytest.approx(expected, abs=1 / 300)
    assert 0.5 < expected < 0.95, "the task must be neither impossible nor trivial"
    assert logistic_regression_accuracy(x, y, test_x, test_y, l2=l2) == found["accuracy"]


@pytest.mark.parametrize(("n", "columns"), [(200, None), (200, 2), (20, 2)])
def test_ridge_against_scikit_learn(n: int, columns: int | None) -> None:
    (x, _), (test_x, _) = blobs(n, 2, 0), blobs(50, 2, 1)  # 20 rows are fewer than 36 features
    draw = torch.Generator().manual_seed(2)
    shape = (n,) if columns is None else (n, columns)
    y = (
        torch.randn(shape, generator=draw) * 5
        + 100
        + (x[:, 0, 5, 5] / 9.0).reshape((n,) + (1,) * (len(shape) - 1))
    )
    scaler = StandardScaler().fit(flat(x))
    theirs = Ridge(alpha=3.0).fit(scaler.transform(flat(x)), y.double().numpy())
    expected = theirs.predict(scaler.transform(flat(test_x)))
    found = ridge_predictions(x, y, test_x, l2=3.0)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def data_of(x: Tensor, y: Tensor) -> MemoryDataset:
    return MemoryDataset({"x": x}, {"y": y})


def test_scores_of_the_majority_class() -> None:
    (x, y), (test_x, test_y) = blobs(200, 4, 0), blobs(100, 4, 1)
    # No sample has the class "e".
    task = Classification(list("abcde"), metrics=["accuracy", "balanced_accuracy"])
    found = baseline_scores(data_of(x, y), data_of(test_x, test_y), task)["majority class"]
    assert found["accuracy"] == majority_accuracy(y, test_y)
    assert found["balanced_accuracy"] == pytest.approx(1 / 4)
    frequencies = (torch.bincount(y, minlength=5).double() + 1) / 205
    assert found["loss"] == pytest.approx(-frequencies[test_y].log().mean().item())


def test_regression_scores_are_in_the_units_of_targets() -> None:
    (x, _), (test_x, _) = blobs(200, 2, 0), blobs(100, 2, 1)
    y, test_y = (v[:, 0, 3, 3].double() * 3 + 1000 for v in (x, test_x))
    plain = baseline_scores(data_of(x, y), data_of(test_x, test_y), Regression())
    task = Regression(mean=float(y.mean()), std=float(y.std()))
    scaled = baseline_scores(data_of(x, y), data_of(test_x, test_y), task)
    assert list(plain) == list(scaled) == ["mean", "ridge regression"]
    for name in ("mae", "rmse", "r2"):
        assert scaled["mean"][name] == pytest.approx(plain["mean"][name], rel=1e-9)
        assert scaled["ridge regression"][name] == pytest.approx(
            plain["ridge regression"][name], rel=1e-6
        )
    assert plain["mean"]["mae"] == pytest.approx((test_y - y.mean()).abs().mean().item())
    expected = r2_score(test_y.numpy(), ridge_predictions(x, y, test_x).numpy())
    assert plain["ridge regression"]["r2"] == pytest.approx(expected, rel=1e-9)
    assert plain["ridge regression"]["r2"] > 0.99
    assert plain["mean"]["r2"] <= 0


def test_scores_of_multi_label_tasks() -> None:
    x, y = blobs(300, 4, 0)
    targets = torch.stack([y == 0, y > 1], dim=1).float()
    task = MultiLabel(["zero", "high"])
    found = baseline_scores(data_of(x, targets), data_of(x, targets), task)
    assert list(found) == ["label frequencies", "logistic regression"]
    scaler = StandardScaler().fit(flat(x))
    losses = []
    for column in range(2):
        theirs = LogisticRegression(C=1.0, max_iter=2000, tol=1e-10)
        theirs.fit(scaler.transform(flat(x)), targets[:, column].numpy())
        losses.append(log_loss(targets[:, column], theirs.predict_proba(scaler.transform(flat(x)))))
    assert found["logistic regression"]["loss"] == pytest.approx(np.mean(losses), rel=1e-3)
    assert found["logistic regression"]["micro_f1"] > found["label frequencies"]["micro_f1"]


def test_ignored_and_soft_targets() -> None:
    x, y = blobs(100, 3, 0)
    task = Classification(list("abc"), ignore_index=-1)
    padded = torch.cat([y, torch.full((20,), -1)])
    more = torch.cat([x, 255 - x[:20]])
    expected = baseline_scores(data_of(x, y), data_of(x, y), Classification(list("abc")))
    found = baseline_scores(data_of(more, padded), data_of(more, padded), task)
    assert found["logistic regression"] == pytest.approx(expected["logistic regression"])
    soft = torch.nn.functional.one_hot(y, 3).float()
    assert baseline_scores(data_of(x, soft), data_of(x, soft), Classification(list("abc"))) == (
        expected
    )


def test_integer_codes_are_not_used_as_features() -> None:
    x, y = blobs(60, 2, 0)
    codes = torch.arange(60).unsqueeze(1)
    task = Classification(["a", "b"])
    only = MemoryDataset({"codes": codes}, {"y": y})
    assert list(baseline_scores(only, only, task)) == ["majority class"]
    both = MemoryDataset({"codes": codes, "x": x, "more": x.float()}, {"y": y})
    assert list(baseline_scores(both, both, task)) == ["majority class", "logistic regression"]


def test_a_large_train_set_is_sampled_reproducibly(monkeypatch) -> None:
    x, y = blobs(300, 3, 0)
    task = Classification(list("abc"))
    whole = baseline_scores(data_of(x, y), data_of(x, y), task)
    monkeypatch.setattr(module, "_MAX_VALUES", 40 * 36)
    first = baseline_scores(data_of(x, y), data_of(x, y), task)
    assert first == baseline_scores(data_of(x, y), data_of(x, y), task)
    assert first["majority class"] == whole["majority class"]
    assert first["logistic regression"]["loss"] > whole["logistic regression"]["loss"]


def test_many_outputs_are_scored_in_pieces_and_not_fitted(monkeypatch) -> None:
    train, test = data_of(*blobs(120, 3, seed=0)), data_of(*blobs(50, 3, seed=1))
    task = Classification(["a", "b", "c"])
    whole = baseline_scores(train, test, task)
    monkeypatch.setattr(module, "_MAX_OUTPUTS", 30)  # 10 rows
    pieces = baseline_scores(train, test, task)
    assert list(whole) == ["majority class", "logistic regression"]
    assert list(pieces) == ["majority class"]
    assert pieces["majority class"] == pytest.approx(whole["majority class"], rel=1e-12)
    monkeypatch.setattr(module, "_MAX_OUTPUTS", 360)
    assert list(baseline_scores(train, test, task)) == list(whole)
    monkeypatch.setattr(module, "_MAX_WEIGHTS", 5)
    assert list(baseline_scores(train, test, task)) == ["majority class"]


def test_other_tasks_have_no_baselines() -> None:
    x, y = blobs(10, 2, 0)
    assert baseline_scores(data_of(x, y), data_of(x, y), Task()) == {}
    pixels = torch.zeros(10, 6, 6, dtype=torch.long)
    found = baseline_scores(data_of(x, pixels), data_of(x, pixels), Classification(["a", "b"]))
    assert found == {}


def test_two_targets_are_refused() -> None:
    x, y = blobs(10, 2, 0)
    data = MemoryDataset({"x": x}, {"y": y, "z": y})
    with pytest.raises(InputError, match=r"exactly one target, but the samples have 2 \(y, z\)"):
        baseline_scores(data, data, Classification(["a", "b"]))


def test_scores_are_finite_for_a_class_absent_from_train() -> None:
    x, y = blobs(50, 3, 0)
    test_y = torch.full((50,), 2)
    y = torch.where(y == 2, 0, y)  # class 2 is only in test
    found = baseline_scores(data_of(x, y), data_of(x, test_y), Classification(list("abc")))
    assert all(math.isfinite(v) for scores in found.values() for v in scores.values())
