"""Temperature and thresholds against scipy, scikit-learn and brute force."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from flambeau import Batch
from flambeau.errors import ArgumentError, InputError
from flambeau.task import Classification, MultiLabel
from flambeau.task.probability_calibration import (
    best_f1_thresholds,
    fit_label_temperature,
    fit_temperature,
)

optimize = pytest.importorskip("scipy.optimize")
special = pytest.importorskip("scipy.special")
sk = pytest.importorskip("sklearn.metrics")


def batches(outputs: Tensor, targets: Tensor, size: int = 17):
    for start in range(0, len(outputs), size):
        rows = slice(start, start + size)
        yield outputs[rows], Batch({"x": outputs[rows]}, {"y": targets[rows]})


def class_draws(n: int, classes: int, scale: float) -> tuple[Tensor, Tensor]:
    """Logits of which the softmax at temperature 1 is overconfident by ``scale``."""
    draw = torch.Generator().manual_seed(classes)
    logits = torch.randn(n, classes, generator=draw, dtype=torch.float64)
    targets = torch.multinomial(logits.softmax(1), 1, generator=draw).squeeze(1)
    return scale * logits, targets


def temperature_of_scipy(loss) -> float:
    """Minimise over log T, without derivatives."""
    found = optimize.minimize_scalar(lambda a: loss(np.exp(a)), (-1, 1), options={"xtol": 1e-12})
    return float(np.exp(found.x))


@pytest.mark.parametrize("scale", [1e-3, 0.3, 1.0, 4.0, 1e4])
@pytest.mark.parametrize("classes", [2, 5])
def test_temperature_of_classes_equals_scipy(classes: int, scale: float) -> None:
    logits, targets = class_draws(400, classes, scale)
    found = Classification(list("abcde")[:classes]).calibrate(batches(logits, targets))
    z, y = logits.numpy() / scale, targets.numpy()

    def loss(t: float) -> float:
        return float(np.mean(special.logsumexp(z / t, axis=1) - z[np.arange(len(z)), y] / t))

    assert list(found) == ["temperature"]
    assert type(found["temperature"]) is float
    # scipy minimises a value, which is flat near its minimum: half of the digits are lost.
    assert found["temperature"] / scale == pytest.approx(temperature_of_scipy(loss), rel=1e-6)


def test_the_slope_at_the_temperature_is_zero_to_rounding() -> None:
    logits, targets = class_draws(300, 4, 3.0)
    found = Classification(list("abcd")).calibrate(batches(logits, targets))["temperature"]
    t = torch.tensor(found, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(logits / t, targets).backward()
    assert abs(float(t.grad)) < 1e-14


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_temperature_of_labels_equals_scipy(scale: float) -> None:
    draw = torch.Generator().manual_seed(3)
    z = torch.randn(300, 4, generator=draw, dtype=torch.float64)
    targets = torch.bernoulli(z.sigmoid(), generator=draw)
    logits = scale * z
    found = MultiLabel(list("abcd")).calibrate(batches(logits, targets))

    def loss(t: float) -> float:
        p = special.expit(logits.numpy() / t)
        return sk.log_loss(targets.numpy().ravel(), p.ravel())

    assert found["temperature"] == pytest.approx(temperature_of_scipy(loss), rel=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_thresholds_have_the_best_f1_of_all(ties: bool) -> None:
    draw = torch.Generator().manual_seed(7)
    truth = (torch.rand(120, 5, generator=draw) < torch.tensor([0.1, 0.2, 0.5, 0.8, 1.0])).long()
    logits = torch.randn(120, 5, generator=draw, dtype=torch.float64) + 1.5 * truth - 1
    logits = logits.round() if ties else logits
    task = MultiLabel(list("abcde"))
    values = task.calibrate(batches(logits, truth))
    p = (logits / values["temperature"]).sigmoid().numpy()
    for label, threshold in enumerate(values["thresholds"]):
        y = truth[:, label].numpy()
        best = max(sk.f1_score(y, p[:, label] >= t) for t in np.unique(p[:, label]))
        assert sk.f1_score(y, p[:, label] >= threshold) == pytest.approx(best, abs=1e-12)
        assert np.abs(p[:, label] - threshold).min() > 1e-7  # between two probabilities
    task.calibration = values
    chosen = np.array([[c in d.labels for c in task.classes] for d in task.decode(logits)])
    assert (chosen == (p >= np.array(values["thresholds"]))).all()
    # The metrics score what decode returns.
    metric = task.metrics()["micro_f1"]
    task.update({"micro_f1": metric}, logits, Batch({"x": logits}, {"y": truth}))
    assert float(metric.compute()) == pytest.approx(
        sk.f1_score(truth.numpy(), chosen, average="micro"), abs=1e-12
    )


def test_a_label_that_applies_to_no_sample_keeps_its_threshold() -> None:
    logits = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    truth = torch.stack([(logits[:, 0] + torch.linspace(-1, 1, 50) > 0), torch.zeros(50)], 1).long()
    assert MultiLabel(["a", "b"], 0.3).calibrate(batches(logits, truth))["thresholds"][1] == 0.3


def test_the_users_thresholds_are_kept() -> None:
    logits = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    truth = (logits + torch.linspace(-1, 1, 100).reshape(50, 2) > 0).long()
    task = MultiLabel(["a", "b"], [0.2, 0.9])
    assert task.thresholds == (0.2, 0.9)
    assert task.calibrate(batches(logits, truth))["thresholds"] == [0.2, 0.9]
    decoded = task.decode(torch.tensor([[-1.0, 1.0], [-2.0, 3.0]]))  # 0.27, 0.73; 0.12, 0.95
    assert [each.labels for each in decoded] == [("a",), ("b",)]
    assert MultiLabel(**json.loads(json.dumps(task.arguments()))).thresholds == (0.2, 0.9)


def test_ignored_targets_and_maps_of_classes() -> None:
    logits, targets = class_draws(240, 3, 2.0)
    expected = Classification(list("abc")).calibrate(batches(logits, targets))
    maps = logits.reshape(12, 4, 5, 3).movedim(-1, 1)
    labels = targets.reshape(12, 4, 5)
    more = torch.full((12, 1, 5), -100)
    found = Classification(list("abc"), ignore_index=-100).calibrate(
        batches(
            torch.cat([maps, torch.randn(12, 3, 1, 5)], 2), torch.cat([labels, more], 1), size=5
        )
    )
    assert found["temperature"] == pytest.approx(expected["temperature"], rel=1e-12)


def test_decode_divides_the_logits_and_the_builder_restores_it() -> None:
    task = Classification(list("abc"), calibration={"temperature": 2.0})
    logits = torch.tensor([[1.0, 3.0, -2.0]])
    [found] = task.decode(logits)
    expected = special.softmax(logits.numpy()[0] / 2)
    assert list(found.probabilities.values()) == pytest.approx(expected, abs=1e-6)
    assert found.label == "b"
    again = Classification(**json.loads(json.dumps(task.arguments())))
    assert again.decode(logits) == task.decode(logits)
    assert "calibration" not in Classification(list("abc")).arguments()
    half = task.calibrated(logits.bfloat16())
    assert half.dtype == torch.float32


def test_the_loss_is_that_of_the_raw_outputs() -> None:
    logits, targets = class_draws(30, 3, 2.0)
    batch = Batch({"x": logits}, {"y": targets})
    with_values = Classification(list("abc"), calibration={"temperature": 3.0})
    assert torch.equal(
        with_values.loss(logits, batch)[0], Classification(list("abc")).loss(logits, batch)[0]
    )


def test_a_minimum_that_does_not_exist_is_an_error() -> None:
    task = Classification(["a", "b"])
    right = torch.tensor([[0.0, 1.0], [2.0, 1.0]] * 4)
    with pytest.raises(InputError, match="outputs are right for each of the 8 calibration targets"):
        task.calibrate(batches(right, torch.tensor([1, 0] * 4)))
    with pytest.raises(InputError, match="no better than equal probabilities"):
        task.calibrate(batches(right, torch.tensor([0, 1] * 4)))
    with pytest.raises(InputError, match="no better than equal probabilities"):
        task.calibrate(batches(torch.zeros(8, 2) + torch.tensor([0, 1e-3]), torch.zeros(8).long()))
    with pytest.raises(InputError, match="not finite"):
        task.calibrate(batches(right / 0, torch.tensor([1, 0] * 4)))
    with pytest.raises(InputError, match="no calibration samples"):
        task.calibrate([])
    with pytest.raises(InputError, match="soft labels"):
        MultiLabel(["a", "b"]).calibrate(batches(right, torch.full((8, 2), 0.9)))
    with pytest.raises(InputError, match="hard"):
        task.calibrate(batches(right, torch.full((8, 2), 0.5)))


def test_invalid_values_are_refused() -> None:
    with pytest.raises(ArgumentError, match="'temprature', but the task knows temperature"):
        Classification(["a", "b"], calibration={"temprature": 1.0})
    for value in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="temperature must be finite and above 0"):
            Classification(["a", "b"], calibration={"temperature": value})
    with pytest.raises(InputError, match="3 thresholds for 2 labels"):
        MultiLabel(["a", "b"], [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="threshold must be a probability between 0 and 1, not 1"):
        MultiLabel(["a", "b"], calibration={"temperature": 1.0, "thresholds": [0.5, 1.0]})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_large_logits_of_any_dtype_are_fitted(dtype: torch.dtype) -> None:
    logits = torch.tensor([[5e4, -5e4]] * 9 + [[-5e4, 5e4]]).to(dtype)
    margin = float(logits[0, 0].double() - logits[0, 1].double())
    found = fit_temperature(logits, torch.zeros(10, dtype=torch.int64))
    # 9 of 10 are right: exp(margin / T) = 9.
    assert found == pytest.approx(margin / math.log(9), rel=1e-12)
    labels = fit_label_temperature(logits[:, :1], torch.ones(10, 1))
    assert labels == pytest.approx(float(logits[0, 0]) / math.log(9), rel=1e-12)


def test_constant_outputs_are_named() -> None:
    targets = torch.zeros(50, dtype=torch.int64)
    with pytest.raises(InputError, match=r"same for all classes, on each of the 50 .*Train"):
        fit_temperature(torch.full((50, 3), 0.7), targets)
    with pytest.raises(InputError, match="same for all classes"):
        fit_label_temperature(torch.zeros(25, 2), torch.ones(25, 2))


@pytest.mark.parametrize("scale", [1e-3, 1e-8, 1e-30])
def test_the_threshold_of_a_rare_label_predicts_it(scale: float) -> None:
    p = torch.tensor([[4.0], [3.0], [2.0], [1.0]]).double() * scale
    [found] = best_f1_thresholds(p, torch.tensor([[1], [1], [0], [0]]), [0.5])
    assert found == pytest.approx(2.5 * scale, rel=1e-9)
    mirrored = 1 - torch.tensor([[1.0], [2.0], [3.0], [4.0]]).double() * 1e-8
    [found] = best_f1_thresholds(mirrored, torch.tensor([[1], [1], [0], [0]]), [0.5])
    assert ((mirrored >= found).flatten().tolist()) == [True, True, False, False]
