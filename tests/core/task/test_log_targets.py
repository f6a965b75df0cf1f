"""``Regression(log=…, bounds=…)``: the loss of the logarithm, predictions in the target's units."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Learner, Predictor, TensorData, TrainingOptions
from flambeau.data.split import Split
from flambeau.errors import ArgumentError, ArtefactError, InputError, PlanError
from flambeau.task import Regression
from flambeau.task.combined import CombinedTask
from flambeau.task.quantiles import QuantileRegression
from flambeau.task.task import StepContext

N = 120
DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(N, 3, generator=DRAWS, dtype=torch.float64)
Y = (1 + X[:, 0] + 0.7 * torch.randn(N, generator=DRAWS, dtype=torch.float64)).exp()
WEIGHTS = torch.rand(N, generator=DRAWS, dtype=torch.float64) + 0.2
LOGS: dict[str, tuple[Any, Any]] = {"log": (np.log, np.exp), "log1p": (np.log1p, np.expm1)}


def model(outputs: int = 1) -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(3, outputs).double()


def data(y: Tensor = Y, **arguments: Any) -> TensorData:
    split = Split.from_indices(range(60), range(60, 90), (), range(90, N))
    return TensorData.from_tensors(X, y, split=split, **arguments)


def learner(task: Regression | CombinedTask, given: TensorData | None = None) -> Learner:
    options = TrainingOptions(doctor=False)
    net = model(task.n_outputs or 1)
    return Learner(given or data(), net, task=task, training=options, quiet=True)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("log", LOGS)
def test_the_loss_is_of_logarithms_and_metrics_of_targets(log: Any, weights: Tensor | None) -> None:
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

    forward, back = LOGS[log]
    task, net = Regression(["y"], mean=0.9, std=1.5, log=log), model()
    batch = Batch({"x": X}, {"y": Y}, sample_weight=weights)
    with torch.no_grad():
        found = task.evaluate(net, [batch], StepContext("evaluate"))
        out = net(X).squeeze(1).numpy()
    w = None if weights is None else weights.numpy()
    y, predicted = Y.numpy(), back(out * 1.5 + 0.9)
    standardised = (forward(y) - 0.9) / 1.5
    assert found["loss"] == pytest.approx(mean_squared_error(standardised, out, sample_weight=w))
    assert found["mae"] == pytest.approx(mean_absolute_error(y, predicted, sample_weight=w))
    assert found["r2"] == pytest.approx(r2_score(y, predicted, sample_weight=w))
    assert task.decode(net(X[:1]).detach())[0].value == pytest.approx(predicted[0], rel=1e-14)


def test_small_numbers_keep_their_digits() -> None:
    """expm1(log1p(1e-12)), which exp(...) - 1 would round to 4 digits."""
    task = Regression(log="log1p")
    out = torch.full((1, 1), math.log1p(1e-12), dtype=torch.float64)
    assert task.decode(out)[0].value == pytest.approx(1e-12, rel=1e-12)


def test_calibrate_corrects_the_median_to_the_mean(tmp_path: Path) -> None:
    given = data(sample_weight=WEIGHTS)
    run = learner(Regression(["y"], mean=1.0, std=1.2, log="log"), given)
    run.fit(30, lr=0.05)
    before = run.predict(X[:5])
    result = run.calibrate()
    rows = slice(90, N)
    errors = Y[rows].log() - (run.model(X[rows]).squeeze(1).detach() * 1.2 + 1.0)
    factor = float((WEIGHTS[rows] * errors.exp()).sum() / WEIGHTS[rows].sum())
    assert result.values == {"smearing": [pytest.approx(factor, rel=1e-12)]}
    assert factor > 1.05  # a mean of exponentials is above the exponential of the mean
    after = run.predict(X[:5])
    assert [each.value for each in after] == pytest.approx([e.value * factor for e in before])
    mean = result.parts["calibration"]
    assert mean.after["rmse"] != mean.before["rmse"]
    loaded = Predictor.load(run.export(tmp_path / "export"), model=model())
    assert loaded.predict(X[:5]) == after
    run.fit(1, lr=0.01)
    assert not run.task.calibration


@pytest.mark.parametrize("log", LOGS)
def test_a_corrected_constant_is_the_mean(log: Any) -> None:
    """Whatever the constant is: Duan's estimate of one distribution is its sample mean."""
    out = torch.full((N, 1), 0.37, dtype=torch.float64)
    task = Regression(log=log, mean=1.1, std=0.8)
    batch = Batch({"x": X}, {"y": Y}, sample_weight=WEIGHTS)
    median = task.decode(out[:1])[0].value
    task.calibration = task.calibrate(
        [(out[:50], batch.first(50)), (out[50:], batch.rows(slice(50, N)))]
    )
    mean = float((Y * WEIGHTS).sum() / WEIGHTS.sum())
    assert task.decode(out[:1])[0].value == pytest.approx(mean, rel=1e-12)
    assert median < mean


def test_log1p_is_corrected_before_1_is_subtracted() -> None:
    task = Regression(["a", "b"], log="log1p", calibration={"smearing": [1.5, 2.0]})
    out = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    expected = [math.exp(0.3) * 1.5 - 1, math.exp(0.7) * 2 - 1]
    assert list(task.decode(out)[0].values.values()) == pytest.approx(expected, rel=1e-14)
    assert Regression(**task.arguments()).calibration == task.calibration


def test_predictions_stay_within_bounds_and_the_loss_ignores_them() -> None:
    out = torch.tensor([[-4.0, -4.0], [0.5, 0.5], [9.0, 9.0]], dtype=torch.float64)
    task = Regression(["a", "b"], bounds=[(0.0, 1.0), (-2.0, 3.0)])
    assert [each.values for each in task.decode(out)] == [
        {"a": 0.0, "b": -2.0},
        {"a": 0.5, "b": 0.5},
        {"a": 1.0, "b": 3.0},
    ]
    both = Regression(["a", "b"], bounds=(0.0, 1.0))
    assert both.bounds == ((0.0, 1.0), (0.0, 1.0))
    batch = Batch({"x": X[:3]}, {"y": torch.zeros(3, 2, dtype=torch.float64)})
    assert task.loss(out, batch)[0] == Regression(["a", "b"]).loss(out, batch)[0]
    scores = task.evaluate(Fixed(out), [batch], StepContext("evaluate"))
    assert scores["mae"] == pytest.approx((0 + 2 + 0.5 + 0.5 + 1 + 3) / 6)
    log = Regression(log="log", bounds=(1.0, 10.0))
    assert log.decode(torch.tensor([[9.0]]))[0].value == 10.0


class Fixed(nn.Module):
    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs


def test_targets_without_a_logarithm_are_refused_by_row() -> None:
    y = Y.clone()
    y[70], y[5] = 0.0, 0.0
    message = r'Regression\(log="log"\) must be above 0, but in valid sample 70 has .*log="log1p"'
    with pytest.raises(InputError, match=message):
        learner(Regression(log="log"), data(y)).fit(1, lr=0.01)
    learner(Regression(log="log1p"), data(y)).fit(1, lr=0.01)
    batch = Batch({"x": X}, {"y": -Y}, indices=torch.arange(N) + 10)
    with pytest.raises(InputError, match=r"at least 0, but sample 10, 11, 12, 13, 14, … have"):
        Regression(log="log1p").loss(model()(X), batch)


def test_missing_targets_have_no_gradient() -> None:
    y = Y.clone()
    y[::4] = torch.nan
    kept = ~y.isnan()
    task, net = Regression(log="log", ignore_nan=True), model()
    total, weight = task.loss(net(X), Batch({"x": X}, {"y": y}))
    expected, n = Regression(log="log").loss(net(X[kept]), Batch({"x": X[kept]}, {"y": Y[kept]}))
    torch.testing.assert_close(total, expected, rtol=1e-13, atol=0)
    assert float(weight) == n
    assert bool(torch.autograd.grad(total, net.weight)[0].isfinite().all())
    pairs = [(net(X).detach(), Batch({"x": X}, {"y": y}))]
    found = task.calibrate(pairs)["smearing"][0]
    errors = Y[kept].log() - net(X[kept]).squeeze(1).detach()
    assert found == pytest.approx(float(errors.exp().mean()), rel=1e-12)


def test_a_combined_task_calibrates_the_logarithm() -> None:
    tasks = {"a": Regression(["a"], log="log"), "b": Regression(["b"])}
    split = Split.from_indices(range(60), range(60, 90), (), range(90, N))
    run = learner(
        CombinedTask(tasks), TensorData.from_tensors(X, {"a": Y, "b": X[:, 1]}, split=split)
    )
    run.fit(1, lr=0.01)
    assert list(run.calibrate().values) == ["a"]


def test_quantiles_of_logarithms_are_logarithms_of_quantiles() -> None:
    task = QuantileRegression(["y"], (0.1, 0.5, 0.9), mean=1.0, std=2.0, log="log")
    out = torch.tensor([[0.4, -0.2, 0.1]], dtype=torch.float64)
    found = task.decode(out)[0]
    expected = [math.exp(each * 2 + 1) for each in (-0.2, 0.1, 0.4)]
    assert list(found.quantiles.values()) == pytest.approx(expected, rel=1e-14)
    assert found.value == pytest.approx(expected[1])
    assert task.calibrate([]) == {}
    assert QuantileRegression(**task.arguments()).target_log == "log"


def test_a_plan_can_choose_the_logarithm() -> None:
    given = TensorData.from_tensors(X.float(), Y.float())
    options = TrainingOptions(doctor=False)
    run = Learner(given, choices={"targets": "log"}, training=options, quiet=True)
    run.fit(2)
    rows = torch.tensor(given.split.train)
    logs = Y.float()[rows].double().log()
    task = run.task
    assert isinstance(task, Regression)
    assert task.target_log == "log"
    assert task.mean == (pytest.approx(float(logs.mean())),)
    assert task.std == (pytest.approx(float(logs.std(correction=0))),)
    assert "log1p" in Learner(given, quiet=True).plan["targets"].alternatives
    with pytest.raises(PlanError, match=r"'as_is', 'standard' for these data"):
        negative = TensorData.from_tensors(X.float(), Y.float() - 5)
        Learner(negative, choices={"targets": "log"}, quiet=True)


def test_weights_of_a_logarithm_are_not_loaded_for_the_targets(tmp_path: Path) -> None:
    run = learner(Regression(["y"], log="log"))
    run.fit(1, lr=0.01)
    folder = run.export(tmp_path / "export")
    with pytest.raises(ArtefactError, match=r"predict targets with log 'log', but"):
        learner(Regression(["y"])).load(folder)


def test_arguments_are_checked() -> None:
    for wrong in (True, "ln"):
        with pytest.raises(ArgumentError, match=f'log is {wrong!r}, but must be "log"'):
            Regression(log=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"bounds contain \(2, 1\)"):
        Regression(bounds=(2.0, 1.0))
    with pytest.raises(InputError, match=r"one pair \(lowest, highest\), or one for each of the 2"):
        Regression(["a", "b"], bounds=[(0.0, 1.0)])
    with pytest.raises(ArgumentError, match="calibration has smearing, but Regression knows only"):
        Regression(calibration={"smearing": [1.0]})
    with pytest.raises(InputError, match=r"smearing factors are \[0.0\]"):
        Regression(log="log", calibration={"smearing": [0.0]})
    with pytest.raises(InputError, match="no calibration samples"):
        Regression(log="log").calibrate([])
