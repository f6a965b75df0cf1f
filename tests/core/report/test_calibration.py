import pytest
import torch

from flambeau.errors import InputError
from flambeau.report import calibration

sklearn_calibration = pytest.importorskip("sklearn.calibration")
metrics = pytest.importorskip("sklearn.metrics")


def drawn(classes: int, n: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(classes)
    p = torch.randn(n, classes, generator=draws, dtype=torch.float64).softmax(dim=1)
    return p, torch.randint(classes, (n,), generator=draws)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_reliability_curve_is_that_of_scikit_learn(classes: int) -> None:
    p, targets = drawn(classes)
    confidence, predicted = p.max(dim=1)
    correct = (predicted == targets).long()
    accuracies, means = sklearn_calibration.calibration_curve(correct, confidence, n_bins=10)
    found = calibration(p, targets)
    assert [each.accuracy.value for each in found.bins] == pytest.approx(list(accuracies))
    assert [each.confidence for each in found.bins] == pytest.approx(list(means))
    assert sum(each.count for each in found.bins) == 500
    # ECE by a plain loop over the bins.
    ece = 0.0
    for index in range(10):
        inside = (confidence > index / 10) & (confidence <= (index + 1) / 10)
        if inside.any():
            gap = confidence[inside].mean() - correct[inside].double().mean()
            ece += float(inside.double().mean() * gap.abs())
    assert found.ece == pytest.approx(ece)
    assert found.accuracy == pytest.approx(float(correct.double().mean()))
    assert found.confidence == pytest.approx(float(confidence.mean()))


def test_the_brier_score_is_that_of_scikit_learn() -> None:
    p, targets = drawn(2)
    assert calibration(p, targets).brier == pytest.approx(
        metrics.brier_score_loss(targets, p[:, 1])
    )
    p, targets = drawn(4)
    squares = [
        sum((float(p[row, index]) - float(index == targets[row])) ** 2 for index in range(4))
        for row in range(len(p))
    ]
    assert calibration(p, targets).brier == pytest.approx(sum(squares) / len(squares))


def test_multi_label_counts_every_label() -> None:
    draws = torch.Generator().manual_seed(0)
    p = torch.rand(300, 3, generator=draws, dtype=torch.float64)
    labels = (torch.rand(300, 3, generator=draws) < p).double()
    found = calibration(p, labels)
    assert found.brier == pytest.approx(metrics.brier_score_loss(labels.flatten(), p.flatten()))
    accuracies, means = sklearn_calibration.calibration_curve(
        labels.flatten(), p.flatten(), n_bins=10
    )
    assert [each.accuracy.value for each in found.bins] == pytest.approx(list(accuracies))
    assert [each.confidence for each in found.bins] == pytest.approx(list(means))
    # The labels are drawn with these probabilities; 900 of them give an ECE of about 0.04.
    assert found.ece < 0.08


def test_perfect_and_overconfident_models() -> None:
    certain = torch.tensor([[1.0, 0.0]] * 4)
    perfect = calibration(certain, torch.zeros(4, dtype=torch.long))
    assert (perfect.ece, perfect.brier, len(perfect.bins)) == (0, 0, 1)
    wrong = calibration(certain, torch.tensor([0, 0, 1, 1]))
    assert (wrong.ece, wrong.brier) == (0.5, 0.5)
    assert "overconfident on average (confidence 100.0%, accuracy 50.0%)" in str(wrong)


def test_invalid_probabilities_are_refused() -> None:
    for p in (torch.tensor([[2.0, -1.0]]), torch.tensor([[float("nan"), 0.5]])):
        with pytest.raises(InputError, match="softmax"):
            calibration(p, torch.tensor([0]))
    with pytest.raises(InputError, match="n targets"):
        calibration(torch.ones(0, 2), torch.ones(0))
    with pytest.raises(InputError, match="do not match"):
        calibration(torch.full((2, 3), 1 / 3), torch.zeros(2, 2))
    with pytest.raises(InputError, match="n_bins"):
        calibration(torch.full((2, 2), 0.5), torch.zeros(2), n_bins=0)
