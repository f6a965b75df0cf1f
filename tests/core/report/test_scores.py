"""The statistics of resamples, compared with the streaming metrics and with scikit-learn."""

import pytest
import torch

from flambeau.report import Predictions, score_intervals
from flambeau.report import scores as statistics
from flambeau.task import (
    R2,
    BalancedAccuracy,
    MacroF1,
    MeanAbsoluteError,
    MultiLabelMacroF1,
    MultiLabelMicroF1,
    RootMeanSquaredError,
)
from flambeau.task.batch_summary import Summary, class_summary, label_summary, value_summary

metrics = pytest.importorskip("sklearn.metrics")


def predictions(
    kind: str, outputs: torch.Tensor, targets: torch.Tensor, losses=None
) -> Predictions:
    if kind == "classification":
        summary = class_summary(outputs, targets, losses)
    elif kind == "multi_label":
        summary = label_summary(outputs, targets, 0.6, losses)
    else:
        summary = value_summary(outputs, targets, losses)
    return Predictions(torch.arange(len(targets)), summary, {})


def drawn(n: int = 300, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    outputs = torch.randn(n, width, generator=draws)
    targets = torch.where(
        torch.rand(n, generator=draws) < 0.5,
        outputs.argmax(dim=1),
        torch.randint(width - 1, (n,), generator=draws),
    )
    return outputs, targets


def streamed(metric, outputs, targets) -> float:
    metric.update(outputs, targets)
    return metric.compute()


def test_scores_of_classification() -> None:
    outputs, targets = drawn()
    found = score_intervals(predictions("classification", outputs, targets))
    predicted = outputs.argmax(dim=1)
    assert found["accuracy"].value == pytest.approx(metrics.accuracy_score(targets, predicted))
    assert found["top_5_accuracy"].value == pytest.approx(
        metrics.top_k_accuracy_score(targets, outputs, k=5, labels=range(8))
    )
    assert found["macro_f1"].value == pytest.approx(streamed(MacroF1(), outputs, targets))
    assert found["balanced_accuracy"].value == pytest.approx(
        streamed(BalancedAccuracy(), outputs, targets)
    )
    for interval in found.values():
        assert 0 < interval.low < interval.value < interval.high < 1


def test_each_resample_is_scored_separately() -> None:
    outputs, targets = drawn(60, 4)
    predicted = outputs.argmax(dim=1)
    rows = torch.randint(60, (5, 60), generator=torch.Generator().manual_seed(0))
    for make, metric in (
        (statistics.macro_f1, MacroF1),
        (statistics.balanced_accuracy, BalancedAccuracy),
    ):
        batched = make(4)(predicted[rows], targets[rows])
        separate = [streamed(metric(), outputs[row], targets[row]) for row in rows]
        assert batched.tolist() == pytest.approx(separate)


def test_ignored_samples_do_not_count() -> None:
    outputs, targets = drawn()
    kept = targets != 3
    some = score_intervals(predictions("classification", outputs, targets.masked_fill(~kept, -1)))
    without = score_intervals(predictions("classification", outputs[kept], targets[kept]))
    assert some == without
    nothing = score_intervals(predictions("classification", outputs, torch.full_like(targets, -1)))
    assert nothing == {}


def test_scores_of_multi_label_tasks() -> None:
    draws = torch.Generator().manual_seed(0)
    outputs = torch.randn(200, 3, generator=draws)
    targets = ((outputs + torch.randn(200, 3, generator=draws)) > 0).float()
    found = score_intervals(predictions("multi_label", outputs, targets))
    predicted = outputs.sigmoid() >= 0.6
    assert found["exact_match"].value == pytest.approx(metrics.accuracy_score(targets, predicted))
    for name, metric in (("micro", MultiLabelMicroF1), ("macro", MultiLabelMacroF1)):
        expected = metrics.f1_score(targets, predicted, average=name)
        assert found[f"{name}_f1"].value == pytest.approx(expected)
        assert found[f"{name}_f1"].value == pytest.approx(streamed(metric(0.6), outputs, targets))


def test_scores_of_regression() -> None:
    draws = torch.Generator().manual_seed(0)
    targets = torch.randn(200, 2, generator=draws, dtype=torch.float64) * 5 + 100
    outputs = targets + torch.randn(200, 2, generator=draws, dtype=torch.float64)
    found = score_intervals(predictions("regression", outputs, targets))
    for name, metric in (("mae", MeanAbsoluteError), ("rmse", RootMeanSquaredError), ("r2", R2)):
        assert found[name].value == pytest.approx(streamed(metric(), outputs, targets))
        assert found[name].low < found[name].value < found[name].high
    assert found["r2"].value == pytest.approx(metrics.r2_score(targets, outputs))


def test_wilson_and_bootstrap_agree_for_accuracy() -> None:
    from flambeau.report import bootstrap

    outputs, targets = drawn(1000)
    right = (outputs.argmax(dim=1) == targets).double()
    ours = score_intervals(predictions("classification", outputs, targets))["accuracy"]
    other = bootstrap(lambda each: each.mean(dim=1), right)
    # Two methods for one interval differ by a few thousandths for 1,000 samples.
    assert ours.low == pytest.approx(other.low, abs=0.006)
    assert ours.high == pytest.approx(other.high, abs=0.006)


def test_one_sample_has_only_proportions() -> None:
    found = score_intervals(
        predictions("classification", torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.ones(1))
    )
    assert list(found) == ["accuracy"]
    assert found["accuracy"].low < 0.3
    assert score_intervals(predictions("regression", torch.ones(1, 1), torch.ones(1, 1))) == {}


def test_constant_targets_have_no_nan_scores() -> None:
    found = score_intervals(predictions("regression", torch.rand(5, 1), torch.full((5, 1), 2.0)))
    assert found["r2"].value == 0
    assert all(each.value == each.value for each in found.values())


def test_losses_alone_have_an_interval() -> None:
    """A task whose outputs have no row per sample still has its loss with an interval."""
    found = Predictions(
        torch.arange(4), Summary(samples={"loss": torch.tensor([1.0, 2, 3, 4])}), {}
    )
    assert score_intervals(found)["loss"].value == 2.5
