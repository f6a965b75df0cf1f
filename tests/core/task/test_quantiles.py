"""``QuantileRegression``: pinball loss, sorted quantiles and metrics against scikit-learn."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Learner, Predictor, TensorData, TrainingOptions
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.prediction_columns import fields_of
from flambeau.errors import ArgumentError, ArtefactError, InputError
from flambeau.report.baselines import baseline_scores
from flambeau.task.quantile_metrics import Coverage, IntervalWidth, MeanPinballLoss
from flambeau.task.quantiles import QuantileRegression
from flambeau.task.sample_losses import sample_losses
from flambeau.task.task import StepContext

N = 150
LEVELS = (0.1, 0.5, 0.8)
DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(N, 3, generator=DRAWS, dtype=torch.float64)
NOISE = torch.randn(N, generator=DRAWS, dtype=torch.float64)
Y = 20 + 4 * X[:, 0] + NOISE * X[:, 1].exp()
WEIGHTS = torch.rand(N, generator=DRAWS, dtype=torch.float64)


def task(**arguments: object) -> QuantileRegression:
    values = {"quantiles": LEVELS, "mean": 20.0, "std": 5.0, **arguments}
    return QuantileRegression(["price"], **values)  # pyright: ignore[reportArgumentType]


def model(outputs: int = 3) -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(3, outputs).double()


def batches(weights: Tensor | None, y: Tensor = Y) -> list[Batch]:
    return [
        Batch({"x": X[r]}, {"y": y[r]}, sample_weight=None if weights is None else weights[r])
        for r in torch.arange(N).split(40)
    ]


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_scores_equal_those_of_sklearn(weights: Tensor | None) -> None:
    from sklearn.metrics import mean_absolute_error, mean_pinball_loss

    net = model()
    with torch.no_grad():
        assert bool((net(X).diff(dim=1) < 0).any())  # the outputs do cross
        found = task().evaluate(net, batches(weights), StepContext("evaluate"))
        q = net(X).sort(dim=1).values.numpy() * 5 + 20
    y, w = Y.numpy(), None if weights is None else weights.numpy()
    each = [
        mean_pinball_loss(y, q[:, at], sample_weight=w, alpha=level)
        for at, level in enumerate(LEVELS)
    ]
    assert found["pinball"] == pytest.approx(np.mean(each), rel=1e-12)
    assert found["loss"] == pytest.approx(np.mean(each) / 5, rel=1e-12)
    mae = mean_absolute_error(y, q[:, 1], sample_weight=w)
    assert found["mae"] == pytest.approx(mae, rel=1e-12)
    inside = (q[:, 0] <= y) & (y <= q[:, 2])
    assert found["coverage"] == pytest.approx(np.average(inside, weights=w), rel=1e-12)
    assert found["width"] == pytest.approx(np.average(q[:, 2] - q[:, 0], weights=w), rel=1e-12)
    assert list(found) == ["loss", "pinball", "coverage", "width", "mae"]
    modes = task().score_modes()
    assert modes == {"loss": "min", "pinball": "min", "mae": "min"}


def test_several_numbers_have_levels_next_to_each_other() -> None:
    from sklearn.metrics import mean_pinball_loss

    y = torch.stack([Y, Y * 2], dim=1)
    both = QuantileRegression(["a", "b"], LEVELS, mean=[1.0, 2.0], std=[3.0, 4.0])
    assert both.n_outputs == 6
    out = model(6)(X).detach()
    total, weight = both.loss(out, Batch({"x": X}, {"y": y}))
    quantiles = out.view(N, 2, 3).sort(dim=2).values.numpy()
    targets = ((y - torch.tensor([1.0, 2.0])) / torch.tensor([3.0, 4.0])).numpy()
    expected = np.mean(
        [
            mean_pinball_loss(targets[:, i], quantiles[:, i, k], alpha=level)
            for i in range(2)
            for k, level in enumerate(LEVELS)
        ]
    )
    assert weight == 2 * N
    assert float(total) / weight == pytest.approx(expected, rel=1e-12)
    found = both.decode(out[:1])[0]
    assert list(found.quantiles) == ["a.q0.1", "a.q0.5", "a.q0.8", "b.q0.1", "b.q0.5", "b.q0.8"]
    assert found.values["b"] == found.quantile(0.5, "b") == found.quantiles["b.q0.5"]
    assert found.quantile(0.8, "b") == pytest.approx(quantiles[0, 1, 2] * 4 + 2, rel=1e-12)


def test_the_gradient_of_sorted_outputs_is_that_of_their_quantile() -> None:
    out = torch.tensor([[3.0, -1.0, 0.5]], dtype=torch.float64, requires_grad=True)
    total, _ = task(mean=None, std=None).loss(out, Batch({"x": X[:1]}, {"y": torch.ones(1)}))
    total.backward()
    # Sorted: -1 (0.1), 0.5 (0.5), 3 (0.8); the target is 1. Below it -level, above it 1 - level.
    expected = torch.tensor([[1 - 0.8, -0.1, -0.5]], dtype=torch.float64) / 3
    torch.testing.assert_close(out.grad, expected, rtol=1e-13, atol=0)


def test_a_linear_model_reaches_the_loss_of_sklearn() -> None:
    from sklearn.linear_model import QuantileRegressor

    data = TensorData.from_tensors(X, Y, valid=0)
    run = Learner(
        data,
        model(),
        task=task(),
        choices={"batch_size": N, "weight_decay": 0.0},
        training=TrainingOptions(doctor=False),
        quiet=True,
    )
    run.fit(120, lr=0.1)
    found = run.evaluate("train")["pinball"]
    best = []
    for level in LEVELS:
        fitted = QuantileRegressor(quantile=level, alpha=0, solver="highs").fit(
            X.numpy(), Y.numpy()
        )
        error = Y.numpy() - fitted.predict(X.numpy())
        best.append(np.maximum(level * error, (level - 1) * error).mean())
    # Adam stops near an optimum. It may lie below that of the linear program, because sorted linear
    # functions can bend where they would cross.
    assert 0.9 * np.mean(best) <= found <= 1.01 * np.mean(best)


def test_predictions_and_exports_have_quantiles(tmp_path: Path) -> None:
    data = TensorData.from_tensors(X, Y)
    options = TrainingOptions(doctor=False)
    run = Learner(data, model(), task=task(), training=options, quiet=True)
    run.fit(1, lr=0.1)
    found = run.predict(X[4])
    expected = run.model(X[4]).detach().sort().values * 5 + 20
    assert list(found.quantiles.values()) == pytest.approx(expected.tolist(), rel=1e-12)
    assert found.value == float(found) == found.quantile(0.5) == found.quantiles["q0.5"]
    assert list(fields_of(found)) == ["price", "q0.1", "q0.5", "q0.8"]
    with pytest.raises(InputError, match=r"no quantile 'q0.9', only q0.1, q0.5, q0.8"):
        found.quantile(0.9)
    folder = run.export(tmp_path / "export")
    loaded = Predictor.load(folder, model=model())
    assert loaded.predict([X[4]]) == [found]
    assert loaded.task.arguments() == task().arguments()
    other = Learner(data, model(), task=task(quantiles=(0.2, 0.5, 0.9)), quiet=True)
    with pytest.raises(
        ArtefactError, match=r"predict targets with quantiles \[0.1, 0.5, 0.8\], but"
    ):
        other.load(folder)
    page = run.interpret()
    assert page.predicted.shape == (30, 1)
    assert page.intervals["mae"].value == pytest.approx(run.evaluate()["mae"])


def test_the_best_constant_has_the_lowest_loss() -> None:
    """The weighted quantiles, as those of rows repeated as often as their weights say."""
    times = torch.arange(N) % 4
    constant = task().constant_outputs(Y, times.double())
    repeated = np.repeat(Y.numpy(), times.numpy())
    expected = np.quantile(repeated, LEVELS, method="inverted_cdf")
    assert (constant * 5 + 20).tolist() == pytest.approx(expected.tolist(), rel=1e-12)
    data = MemoryDataset({"x": X}, {"y": Y})
    found = baseline_scores(data, data, task())
    assert list(found) == ["constant"]
    assert found["constant"]["coverage"] == pytest.approx(0.7, abs=0.02)


def test_missing_targets_do_not_count() -> None:
    y = Y.clone()
    y[::3] = torch.nan
    kept = ~y.isnan()
    net, ignoring = model(), task(ignore_nan=True)
    with torch.no_grad():
        found = ignoring.evaluate(net, batches(WEIGHTS, y), StepContext("evaluate"))
    batch = Batch({"x": X[kept]}, {"y": Y[kept]}, sample_weight=WEIGHTS[kept])
    expected = task().evaluate(net, [batch], StepContext("evaluate"))
    assert found == pytest.approx(expected, rel=1e-12)
    out = net(X)
    each = ignoring.sample_losses(out, Batch({"x": X}, {"y": y}))
    one_by_one = sample_losses(ignoring, out, Batch({"x": X}, {"y": y}))
    torch.testing.assert_close(each, one_by_one, rtol=1e-12, atol=0)


def test_a_nan_is_not_hidden_by_the_coverage() -> None:
    quantiles = torch.zeros(2, 1, 3)
    quantiles[1, 0, 1] = torch.nan
    metric = Coverage()
    metric.update(quantiles, torch.zeros(2, 1))
    assert np.isnan(metric.compute())
    for other in (IntervalWidth(), MeanPinballLoss(LEVELS)):
        with pytest.raises(InputError, match=r"must be \(batch, values, levels\)"):
            other.update(torch.zeros(2, 3), torch.zeros(2))


def test_a_plan_chooses_quantiles_by_name() -> None:
    data = TensorData.from_tensors(X.float(), Y.float(), task="quantile_regression")
    run = Learner(data, quiet=True, training=TrainingOptions(doctor=False))
    assert run.plan.values["metrics"] == ["pinball", "coverage", "width", "mae"]
    assert run.plan.values["targets"] == "standard"
    run.fit(2)
    assert isinstance(run.task, QuantileRegression)
    assert run.task.quantiles == (0.05, 0.5, 0.95)
    assert run.task.mean is not None
    assert list(run.predict(X[0].float()).quantiles) == ["q0.05", "q0.5", "q0.95"]


def test_arguments_are_checked_and_copied() -> None:
    for wrong, message in (
        ((0.5, 0.1), r"must increase: \(0.1, 0.5\)"),
        ((0.0, 0.5), "must be between 0 and 1"),
        ((0.1, 0.9), "must contain the median"),
        ((0.5,), "and another level"),
    ):
        with pytest.raises(InputError, match=message):
            QuantileRegression(quantiles=wrong)
    with pytest.raises(ArgumentError, match="Unknown metric 'pinbal'"):
        QuantileRegression(metrics=["pinbal"])
    with pytest.raises(InputError, match=r"expects outputs of shape \(batch, 3\), but got"):
        task().loss(torch.zeros(4, 1), Batch({"x": X[:4]}, {"y": Y[:4]}))
    copied = copy.deepcopy(task())
    out = torch.randn(5, 3, dtype=torch.float64)
    batch = Batch({"x": X[:5]}, {"y": Y[:5]})
    assert float(copied.loss(out, batch)[0]) == float(task().loss(out, batch)[0])
