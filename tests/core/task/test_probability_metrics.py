"""AUROC, average precision, log-loss and Brier score against scikit-learn, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from flambeau import Batch
from flambeau.errors import InputError
from flambeau.task import (
    AUROC,
    AveragePrecision,
    BrierScore,
    Classification,
    LogLoss,
    MultiLabel,
    StepContext,
    score,
)

sk = pytest.importorskip("sklearn.metrics")

NAMES = ("auroc", "average_precision", "brier", "log_loss")
CLOSE = 1e-12  # the same sums in float64, in another order


def fill(metric, outputs: Tensor, targets: Tensor, size: int = 17):
    """Update the metric with batches of which the last is smaller, and return it."""
    for start in range(0, len(outputs), size):
        metric.update(outputs[start : start + size], targets[start : start + size])
    return metric


def scores(known, outputs: Tensor, targets: Tensor) -> dict[str, float]:
    return {name: score(fill(known[name](), outputs, targets)) for name in NAMES}


def draws(n: int, *, classes: int, ties: bool) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(classes)
    targets = torch.randint(classes, (n,), generator=draw)
    logits = torch.randn(n, classes, generator=draw, dtype=torch.float64)
    logits[torch.arange(n), targets] += 0.7
    # Multiples of 1/2, of which the softmax keeps differences exactly.
    return (logits * 2).round() / 2 if ties else logits, targets


def of_classes(truth: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Return scikit-learn's scores; one against the rest for more than two classes."""
    if p.shape[1] == 2:
        return {
            "auroc": sk.roc_auc_score(truth, p[:, 1]),
            "average_precision": sk.average_precision_score(truth, p[:, 1]),
            "brier": sk.brier_score_loss(truth, p[:, 1]),
            "log_loss": sk.log_loss(truth, p),
        }
    one_hot = np.eye(p.shape[1])[truth]
    return {
        "auroc": sk.roc_auc_score(truth, p, multi_class="ovr"),
        "average_precision": sk.average_precision_score(one_hot, p),
        "brier": ((p - one_hot) ** 2).sum(1).mean(),
        "log_loss": sk.log_loss(truth, p),
    }


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classes_equal_scikit_learn(classes: int, ties: bool) -> None:
    logits, truth = draws(300, classes=classes, ties=ties)
    found = scores(Classification.known_metrics(), logits, truth)
    # Rounded, because sums in another order make equal probabilities differ.
    expected = of_classes(truth.numpy(), logits.softmax(1).numpy().round(13))
    assert found == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("ties", [False, True])
def test_labels_equal_scikit_learn(ties: bool) -> None:
    draw = torch.Generator().manual_seed(5)
    truth = (torch.rand(200, 4, generator=draw) < torch.tensor([0.1, 0.3, 0.5, 0.9])).long()
    logits = torch.randn(200, 4, generator=draw, dtype=torch.float64) + truth
    logits = (logits * 2).round() / 2 if ties else logits
    y, p = truth.numpy(), logits.sigmoid().numpy()
    expected = {
        "auroc": sk.roc_auc_score(y, p, average="macro"),
        "average_precision": sk.average_precision_score(y, p, average="macro"),
        "brier": np.mean([sk.brier_score_loss(y[:, k], p[:, k]) for k in range(4)]),
        "log_loss": np.mean([sk.log_loss(y[:, k], p[:, k]) for k in range(4)]),
    }
    for targets in (truth, truth.double()):
        found = scores(MultiLabel.known_metrics(), logits, targets)
        assert found == pytest.approx(expected, abs=CLOSE)


def test_all_scores_tied_and_all_in_order() -> None:
    truth = torch.tensor([0, 1, 0, 1, 1])
    assert score(fill(AUROC(), torch.zeros(5, 2), truth)) == 0.5
    assert score(fill(AveragePrecision(), torch.zeros(5, 2), truth)) == 0.6
    perfect = torch.stack([-truth, truth], 1).float()
    assert score(fill(AUROC(), perfect, truth)) == 1
    assert score(fill(AveragePrecision(), perfect, truth)) == 1
    assert score(fill(AUROC(), -perfect, truth)) == 0


def test_confident_outputs_are_not_tied_by_rounding() -> None:
    logits = torch.tensor([[0.0, 60.0], [0.0, 50.0]])  # both probabilities round to 1
    assert score(fill(AUROC(), logits, torch.tensor([1, 0]))) == 1


def test_an_absent_class_gives_nan_but_log_loss_and_brier_are_defined() -> None:
    logits, truth = draws(60, classes=3, ties=False)
    truth = truth % 2  # class 2 has no samples
    p = logits.softmax(1).numpy()
    found = scores(Classification.known_metrics(), logits, truth)
    assert math.isnan(found["auroc"])
    assert math.isnan(found["average_precision"])
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, p, labels=[0, 1, 2]), abs=CLOSE)
    one_hot = np.eye(3)[truth.numpy()]
    assert found["brier"] == pytest.approx(((p - one_hot) ** 2).sum(1).mean(), abs=CLOSE)


@pytest.mark.parametrize("kind", [AUROC, AveragePrecision, LogLoss, BrierScore])
def test_before_the_first_batch_and_for_nan_outputs_the_score_is_nan(kind) -> None:
    assert math.isnan(score(kind()))
    outputs = torch.randn(6, 3)
    outputs[2, 1] = torch.nan
    assert math.isnan(score(fill(kind(), outputs, torch.arange(6) % 3)))


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_not_counted_and_further_axes_are_rows(name: str) -> None:
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(4, 3, 5, 6, generator=draw, dtype=torch.float64)
    targets = torch.randint(3, (4, 5, 6), generator=draw)
    targets[1, 2:] = -100
    found = score(fill(Classification.known_metrics(-100)[name](), outputs, targets, size=3))
    kept = targets != -100
    rows = outputs.movedim(1, -1)[kept], targets[kept]
    assert found == pytest.approx(
        of_classes(rows[1].numpy(), rows[0].softmax(1).numpy())[name], abs=CLOSE
    )


@pytest.mark.parametrize("name", NAMES)
def test_merged_parts_equal_the_whole_and_reset_discards(name: str) -> None:
    logits, truth = draws(101, classes=3, ties=True)
    make = Classification.known_metrics()[name]
    whole, merged = fill(make(), logits, truth), make()
    for rows in (slice(0, 40), slice(40, 40), slice(40, 101)):  # one process has no samples
        merged.merge(fill(make(), logits[rows], truth[rows]).sums)
    assert score(merged) == pytest.approx(score(whole), abs=1e-15)
    merged.reset()
    assert math.isnan(score(merged))


def test_a_later_change_of_the_outputs_does_not_change_the_score() -> None:
    logits, truth = draws(20, classes=2, ties=False)
    metric, own = AUROC(), logits.clone()
    metric.update(own, truth)
    own.zero_()  # as a compiled model that reuses its memory does
    assert score(metric) == score(fill(AUROC(), logits, truth))


@pytest.mark.parametrize("name", NAMES)
def test_soft_labels_are_refused(name: str) -> None:
    logits, truth = draws(6, classes=3, ties=False)
    soft = torch.nn.functional.one_hot(truth, 3).double() * 0.9
    with pytest.raises(InputError, match="hard labels"):
        Classification.known_metrics()[name]().update(logits, soft)
    with pytest.raises(InputError, match="soft labels"):
        score(fill(MultiLabel.known_metrics()[name](), logits, soft))


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"shape \(4, 1\)"):
        Classification.known_metrics()[name]().update(torch.randn(4, 3), torch.zeros(4, 1).long())
    with pytest.raises(InputError, match=r"shape \(4,\)"):
        MultiLabel.known_metrics()[name]().update(torch.randn(4, 3), torch.zeros(4))


def test_evaluate_with_the_names() -> None:
    task = Classification(["a", "b", "c"], metrics=NAMES)
    logits, truth = draws(50, classes=3, ties=False)
    batches = [Batch({"x": logits[i : i + 8]}, {"y": truth[i : i + 8]}) for i in range(0, 50, 8)]
    found = task.evaluate(torch.nn.Identity(), batches, StepContext("evaluate"))
    assert found.pop("loss") == pytest.approx(found["log_loss"], abs=CLOSE)
    assert found == pytest.approx(of_classes(truth.numpy(), logits.softmax(1).numpy()), abs=CLOSE)


# ---------------------------------------------------------------- sample weights


def weights_for(n: int, kind: str) -> Tensor:
    draw = torch.Generator().manual_seed(3)
    if kind == "whole":
        return torch.randint(0, 4, (n,), generator=draw)
    weights = torch.rand(n, generator=draw, dtype=torch.float64) ** 3
    weights[::7] = 0
    return weights


def weighted(metric, outputs: Tensor, targets: Tensor, weights: Tensor, size: int = 17):
    for start in range(0, len(outputs), size):
        rows = slice(start, start + size)
        metric.update(outputs[rows], targets[rows], weights[rows])
    return metric


@pytest.mark.parametrize("kind", ["whole", "real"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_weighted_classes_equal_scikit_learn(classes: int, ties: bool, kind: str) -> None:
    logits, truth = draws(300, classes=classes, ties=ties)
    weights = weights_for(300, kind)
    logits[weights == 0] = torch.nan  # counts for nothing
    known = Classification.known_metrics()
    found = {name: score(weighted(known[name](), logits, truth, weights)) for name in NAMES}
    used = weights > 0
    y, w = truth[used].numpy(), weights[used].numpy()
    p = logits[used].softmax(1).numpy().round(13)  # sums in another order differ by rounding
    one_hot = np.eye(classes)[y]
    expected = {
        "log_loss": sk.log_loss(y, p, sample_weight=w),
        "brier": np.average(((p - one_hot) ** 2).sum(1) / (2 if classes == 2 else 1), weights=w),
    }
    binary = (y, p[:, 1]) if classes == 2 else (one_hot, p)
    expected["auroc"] = sk.roc_auc_score(*binary, sample_weight=w)
    expected["average_precision"] = sk.average_precision_score(*binary, sample_weight=w)
    assert found == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("kind", ["whole", "real"])
@pytest.mark.parametrize("ties", [False, True])
def test_weighted_labels_equal_scikit_learn(ties: bool, kind: str) -> None:
    draw = torch.Generator().manual_seed(5)
    truth = (torch.rand(200, 4, generator=draw) < torch.tensor([0.1, 0.3, 0.5, 0.9])).long()
    logits = torch.randn(200, 4, generator=draw, dtype=torch.float64) + truth
    logits = (logits * 2).round() / 2 if ties else logits
    weights = weights_for(200, kind)
    known = MultiLabel.known_metrics()
    found = {name: score(weighted(known[name](), logits, truth, weights)) for name in NAMES}
    y, p, w = truth.numpy(), logits.sigmoid().numpy(), {"sample_weight": weights.numpy()}
    expected = {
        "auroc": sk.roc_auc_score(y, p, average="macro", **w),
        "average_precision": sk.average_precision_score(y, p, average="macro", **w),
        "brier": np.mean([sk.brier_score_loss(y[:, k], p[:, k], **w) for k in range(4)]),
        "log_loss": np.mean([sk.log_loss(y[:, k], p[:, k], **w) for k in range(4)]),
    }
    assert found == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_whole_weights_equal_repeated_samples_with_padding_and_axes(name: str) -> None:
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(8, 3, 5, generator=draw, dtype=torch.float64)
    targets = torch.randint(3, (8, 5), generator=draw)
    targets[1, 2:] = -100
    weights = torch.tensor([0, 1, 2, 3, 1, 1, 0, 2])
    make = Classification.known_metrics(-100)[name]
    found = score(weighted(make(), outputs, targets, weights, size=3))
    rows = torch.arange(8).repeat_interleave(weights)
    assert found == pytest.approx(score(fill(make(), outputs[rows], targets[rows])), abs=CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_merged_weighted_parts_equal_the_whole(name: str) -> None:
    logits, truth = draws(101, classes=3, ties=True)
    weights = weights_for(101, "real")
    make = Classification.known_metrics()[name]
    merged = make()
    for rows in (slice(0, 40), slice(40, 40), slice(40, 101)):
        merged.merge(weighted(make(), logits[rows], truth[rows], weights[rows]).sums)
    whole = weighted(make(), logits, truth, weights)
    assert score(merged) == pytest.approx(score(whole), abs=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_weights_counts_each_sample_once(name: str) -> None:
    logits, truth = draws(60, classes=3, ties=False)
    make = Classification.known_metrics()[name]
    mixed = fill(weighted(make(), logits[:30], truth[:30], torch.full((30,), 2)), logits, truth)
    rows = torch.cat([torch.arange(30).repeat(2), torch.arange(60)])
    expected = score(fill(make(), logits[rows], truth[rows]))
    assert score(mixed) == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("name", ["auroc", "log_loss"])
def test_weights_of_zero_alone_give_nan(name: str) -> None:
    logits, truth = draws(20, classes=3, ties=False)
    metric = Classification.known_metrics()[name]()
    assert math.isnan(score(weighted(metric, logits, truth, torch.zeros(20))))


def test_evaluate_uses_sample_weights() -> None:
    task = Classification(["a", "b", "c"], metrics=NAMES)
    logits, truth = draws(50, classes=3, ties=False)
    weights = weights_for(50, "whole")
    batches = [
        Batch({"x": logits[rows]}, {"y": truth[rows]}, sample_weight=weights[rows].double())
        for rows in torch.arange(50).split(8)
    ]
    found = task.evaluate(torch.nn.Identity(), batches, StepContext("evaluate"))
    rows = torch.arange(50).repeat_interleave(weights)
    expected = of_classes(truth[rows].numpy(), logits[rows].softmax(1).numpy())
    assert found.pop("loss") == pytest.approx(expected["log_loss"], abs=CLOSE)
    assert found == pytest.approx(expected, abs=CLOSE)


def test_large_margins_of_several_classes_do_not_tie() -> None:
    """A softmax rounds to 1 from a margin of 37 on, where log-odds still differ."""
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 4, generator=draws).double() * 40
    targets = (logits + 60 * torch.randn(200, 4, generator=draws)).argmax(1)
    for kind, reference in (
        (AUROC, sk.roc_auc_score),
        (AveragePrecision, sk.average_precision_score),
    ):
        metric = kind()
        metric.update(logits, targets)
        expected = []
        for column in range(4):
            rest = [other for other in range(4) if other != column]
            odds = logits[:, column] - logits[:, rest].logsumexp(1)
            expected.append(reference(targets == column, odds))
        assert metric.compute() == pytest.approx(sum(expected) / 4, rel=1e-12)
