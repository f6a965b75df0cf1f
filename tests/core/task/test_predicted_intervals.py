"""Intervals and sets of classes in predictions: coverage, exports, groups, errors."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from flambeau import Learner, Predictor, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, InputError
from flambeau.task.quantiles import QuantileRegression

N = 1_200


def numbers(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(N, 3, generator=generator)
    # The noise grows with the first input.
    y = 5 * x[:, 0] + (0.1 + x[:, 0]) * torch.randn(N, generator=generator)
    return x, y


def trained(data: TensorData, **arguments: object) -> Learner:
    learner = Learner(data, quiet=True, **arguments)  # type: ignore[arg-type]
    learner.fit(3)
    return learner


def test_the_interval_is_the_prediction_and_the_quantile_of_the_errors(tmp_path: Path) -> None:
    x, y = numbers()
    data = TensorData.from_tensors(x, y, valid=0.1, calibration=300, test=400)
    learner = trained(data)
    with pytest.raises(InputError, match=r"not calibrated.*calibrate\(intervals=True\)"):
        learner.predict(x[:2], interval=0.9)
    before = [each.value for each in learner.predict(x[:50])]
    result = learner.calibrate(intervals=True)
    assert "intervals of value" in str(result)
    rows = data.split.calibration
    errors = torch.tensor([each.value for each in learner.predict(x[rows])]) - y[rows]
    rank = math.ceil(301 * 0.9)
    half = float(errors.abs().double().sort().values[rank - 1])
    found = learner.predict(x[:50], interval=0.9)
    for estimate, value in zip(found, before, strict=True):
        assert estimate.value == value
        assert estimate.interval["low"] == pytest.approx(value - half, abs=1e-5)
        assert estimate.interval["high"] == pytest.approx(value + half, abs=1e-5)
    test = data.split.test
    covered = [
        each.interval["low"] <= float(target) <= each.interval["high"]
        for each, target in zip(learner.predict(x[test], interval=0.9), y[test], strict=True)
    ]
    assert sum(covered) / len(covered) == pytest.approx(0.9, abs=0.06)  # standard error .023
    loaded = Predictor.load(learner.export(tmp_path / "model"))
    for one, other in zip(loaded.predict(x[:50], interval=0.9), found, strict=True):
        assert one.interval == pytest.approx(other.interval, abs=1e-5)
    assert not hasattr(loaded.predict(x[:1])[0], "interval")


def test_quantiles_give_intervals_of_different_widths() -> None:
    x, y = numbers(1)
    data = TensorData.from_tensors(
        x, y, valid=0.1, calibration=300, test=400, task="quantile_regression"
    )
    learner = Learner(data, quiet=True)
    learner.fit(20)
    assert isinstance(learner.task, QuantileRegression)
    learner.calibrate(intervals=True)
    test = data.split.test
    found = learner.predict(x[test], interval=0.9)
    low, high = (torch.tensor([each.interval[end] for each in found]) for end in ("low", "high"))
    share = float(((low <= y[test]) & (y[test] <= high)).double().mean())
    assert share == pytest.approx(0.9, abs=0.06)
    noisy = x[test, 0] > 0.5
    assert float((high - low)[noisy].mean()) > 1.5 * float((high - low)[~noisy].mean())


def test_sets_of_classes_contain_the_right_one(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(N, 4, generator=generator)
    y = (x[:, :3] + 1.2 * torch.randn(N, 3, generator=generator)).argmax(1)
    data = TensorData.from_tensors(x, y, valid=0.1, calibration=300, test=400)
    learner = trained(data)
    learner.calibrate(intervals=True)
    assert set(learner.task.calibration) == {"temperature", "intervals"}
    test = data.split.test
    found = learner.predict(x[test], interval=0.9)
    hits = [str(int(label)) in each.classes for each, label in zip(found, y[test], strict=True)]
    assert sum(hits) / len(hits) == pytest.approx(0.9, abs=0.06)
    assert all(each.label == each.classes[0] for each in found)
    assert {len(each.classes) for each in found} >= {1, 2}
    loaded = Predictor.load(learner.export(tmp_path / "model"))
    assert loaded.predict(x[test], interval=0.9) == found
    # The most probable classes come first, down to the stated threshold.
    wide = learner.predict(x[test], interval=0.99)
    assert sum(len(each.classes) for each in wide) > sum(len(each.classes) for each in found)


class Grouped(TensorData):
    """Data whose rows have groups."""

    def groups(self, part: str) -> list[int] | None:
        return (self.split.part(part) // 100).tolist()


def test_a_group_counts_as_one_sample() -> None:
    x, y = numbers(3)
    y[:100] += 20  # one group is far off
    plain = TensorData.from_tensors(x, y, valid=0.1, calibration=700)
    grouped = Grouped(
        {part: plain.dataset(part, _no_change(plain), {}) for part in ("train", "valid")}
        | {"calibration": plain.dataset("calibration", _no_change(plain), {})},
        plain.split,
    )
    learner = trained(grouped)
    learner.calibrate(intervals=True)
    scores = learner.task.calibration["intervals"]["value"]
    assert scores["total"] == pytest.approx(len({row // 100 for row in plain.split.calibration}))


def _no_change(data: TensorData) -> object:
    return data.preprocessor({"normalisation": "none", "input_dtype": None})


def test_what_has_no_intervals_says_so() -> None:
    x, y = numbers()
    labels = torch.stack([y > 2, y > 3], dim=1).float()
    data = TensorData.from_tensors(x, labels, valid=0.1, calibration=0.2)
    learner = trained(data)
    with pytest.raises(ArgumentError, match="MultiLabel predicts no intervals"):
        learner.calibrate(intervals=True)
    with pytest.raises(ArgumentError, match="MultiLabel has no option 'interval'"):
        learner.predict(x[:1], interval=0.9)
    few = TensorData.from_tensors(x, y, valid=0.1, calibration=5)
    learner = trained(few, training=TrainingOptions())
    learner.calibrate(intervals=True)
    [found] = learner.predict(x[:1], interval=0.9)
    assert found.interval == {"low": -math.inf, "high": math.inf}
    with pytest.raises(ArgumentError, match="must be a share between 0 and 1"):
        learner.predict(x[:1], interval=90)
