"""Measures of predictions against scikit-learn, and intervals against a slow loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor

from flambeau.report.intervals import resampled_counts
from flambeau_tabular.report.measures import Rows, compare, measures_of, row_losses
from flambeau_tabular.report.problem import Predicted, Problem

N = 60


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights() -> Tensor:
    return torch.rand(N, generator=draws()).double() + 0.5


def scores(
    problem: Problem, predicted: Predicted, targets: Tensor, **rows: Tensor
) -> dict[str, float]:
    found = compare(
        measures_of(problem),
        {"model": predicted},
        Rows(targets, **rows),
        reference="model",
        resamples=2,
    )
    return {name: each.interval.value for name, each in found["model"].items()}


def of_classes(classes: int) -> tuple[Problem, Predicted, Tensor]:
    problem = Problem("classes", tuple("abcd"[:classes]))
    # Rounded, so that there are equal scores, which count half in the AUROC.
    values = torch.randn(N, classes, generator=draws()).double().round(decimals=1).softmax(dim=1)
    targets = torch.randint(classes, (N,), generator=draws(1))
    return problem, Predicted(values, problem.decided(values)), targets


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_class_measures_equal_scikit_learn(classes: int, weighted: bool) -> None:
    problem, predicted, targets = of_classes(classes)
    w = weights() if weighted else None
    found = scores(problem, predicted, targets, **({} if w is None else {"weights": w}))
    p, y = predicted.values.numpy(), targets.numpy()
    named: dict[str, Any] = {"sample_weight": None if w is None else w.numpy()}
    decided = p.argmax(axis=1)
    expected = {
        "log_loss": metrics.log_loss(y, p, labels=range(classes), **named),
        "accuracy": metrics.accuracy_score(y, decided, **named),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, decided, **named),
    }
    columns = [1] if classes == 2 else range(classes)
    curves = [metrics.roc_auc_score(y == at, p[:, at], **named) for at in columns]
    expected["auroc"] = float(np.mean(curves))
    if classes == 2:
        expected["brier"] = metrics.brier_score_loss(y, p[:, 1], **named)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_label_measures_equal_scikit_learn() -> None:
    problem = Problem("labels", ("a", "b", "c"), thresholds=(0.5, 0.4, 0.3))
    values = torch.rand(N, 3, generator=draws()).double()
    targets = (torch.rand(N, 3, generator=draws(1)) < values).long()
    predicted = Predicted(values, problem.decided(values))
    found = scores(problem, predicted, targets, weights=weights())
    y, decided = targets.numpy(), (values.numpy() >= [0.5, 0.4, 0.3])
    named: dict[str, Any] = {"sample_weight": weights().numpy()}
    losses = [metrics.log_loss(y[:, at], values[:, at].numpy(), **named) for at in range(3)]
    assert found["log_loss"] == pytest.approx(np.mean(losses), abs=1e-12)
    assert found["micro_f1"] == pytest.approx(
        metrics.f1_score(y, decided, average="micro", **named), abs=1e-12
    )
    assert found["macro_f1"] == pytest.approx(
        metrics.f1_score(y, decided, average="macro", **named), abs=1e-12
    )
    assert found["exact_match"] == pytest.approx(metrics.accuracy_score(y, decided, **named))
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(y, values.numpy(), **named))


def of_numbers() -> tuple[Tensor, Tensor]:
    targets = torch.rand(N, 2, generator=draws()).double() * 50 + 1000
    return targets + torch.randn(N, 2, generator=draws(1)).double(), targets


def test_number_measures_equal_scikit_learn() -> None:
    values, targets = of_numbers()
    found = scores(Problem("numbers", ("a", "b")), Predicted(values), targets, weights=weights())
    y, p, w = targets.numpy(), values.numpy(), weights().numpy()
    named: dict[str, Any] = {"sample_weight": w}
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(y, p, **named))
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(y, p, **named))
    # Centred once, so 1e-9 in place of rounding: the variance is a difference of two sums.
    assert found["r2"] == pytest.approx(metrics.r2_score(y, p, **named), abs=1e-9)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_deviance_equals_scikit_learn(power: float) -> None:
    values, targets = (each[:, :1] for each in of_numbers())
    problem = Problem("amounts", ("a",), power=power)
    found = scores(problem, Predicted(values), targets, weights=weights())
    expected = metrics.mean_tweedie_deviance(
        targets.numpy()[:, 0], values.numpy()[:, 0], power=power, sample_weight=weights().numpy()
    )
    assert next(iter(found.values())) == pytest.approx(expected, rel=1e-9)


def test_quantile_measures_equal_scikit_learn() -> None:
    values, targets = (each[:, :1] for each in of_numbers())
    quantiles = torch.stack([values - 1, values, values + 0.5], dim=2)
    problem = Problem("quantiles", ("a",), levels=(0.05, 0.5, 0.95))
    found = scores(problem, Predicted(values, quantiles=quantiles), targets, weights=weights())
    y, w = targets.numpy()[:, 0], weights().numpy()
    losses = [
        metrics.mean_pinball_loss(y, quantiles[:, 0, at].numpy(), alpha=level, sample_weight=w)
        for at, level in enumerate((0.05, 0.5, 0.95))
    ]
    assert found["pinball"] == pytest.approx(np.mean(losses))
    inside = (y >= quantiles[:, 0, 0].numpy()) & (y <= quantiles[:, 0, 2].numpy())
    assert found["coverage"] == pytest.approx(np.average(inside, weights=w))
    assert found["width"] == pytest.approx(1.5)


def test_row_losses_have_the_first_measure_as_mean() -> None:
    problem, predicted, targets = of_classes(4)
    first = measures_of(problem)[0].of(predicted, targets)(torch.ones(1, N).double())
    assert float(row_losses(problem, predicted, targets).mean()) == pytest.approx(float(first))


def test_intervals_equal_a_loop_over_resampled_groups() -> None:
    problem, predicted, targets = of_classes(2)
    other = Predicted(predicted.values.flip(1), problem.decided(predicted.values.flip(1)))
    groups = torch.arange(N) // 7
    rows = Rows(targets, weights(), groups)
    found = compare(
        measures_of(problem)[:2], {"a": predicted, "b": other}, rows, reference="a", resamples=50
    )
    values: dict[str, list[float]] = {"a": [], "b": []}
    for counts in resampled_counts(N, 50, groups):
        for row in counts.numpy():
            # The row numbers of the resample, with repetitions.
            at = np.repeat(np.arange(N), row.astype(int))
            for name, each in (("a", predicted), ("b", other)):
                right = each.values.argmax(dim=1).numpy()[at] == targets.numpy()[at]
                values[name].append(float(np.average(right, weights=weights().numpy()[at])))
    ends = np.quantile(values["b"], [0.025, 0.975])
    score = found["b"]["accuracy"]
    assert [score.interval.low, score.interval.high] == pytest.approx(ends)
    between = np.quantile(np.subtract(values["b"], values["a"]), [0.025, 0.975])
    assert score.difference is not None
    assert [score.difference.low, score.difference.high] == pytest.approx(between)


def test_a_single_group_has_no_interval() -> None:
    problem, predicted, targets = of_classes(2)
    rows = Rows(targets, groups=torch.zeros(N).long())
    found = compare(measures_of(problem), {"a": predicted}, rows, reference="a")
    assert np.isnan(found["a"]["accuracy"].interval.low)
