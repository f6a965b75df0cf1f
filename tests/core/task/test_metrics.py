import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd.profiler import profile

from flambeau.errors import ArgumentError, InputError
from flambeau.task import (
    R2,
    Accuracy,
    BalancedAccuracy,
    ConfusionMatrix,
    ExactMatch,
    MacroF1,
    MeanAbsoluteError,
    MeanLoss,
    Metric,
    MultiLabelMacroF1,
    MultiLabelMicroF1,
    RootMeanSquaredError,
    SumMetric,
    TopKAccuracy,
    score,
)
from flambeau.task.metric_choice import fresh_metrics

sk = pytest.importorskip("sklearn.metrics")

CASES = [  # classes, labels that occur, samples
    (3, [0, 1, 2], 200),
    (10, [0, 3, 7], 300),  # absent classes
    (5, [2], 40),  # one class only
    (2, [0, 1], 7),
]


def fill(metric, outputs: Tensor, targets: Tensor, size: int = 17):
    """Update the metric with batches of which the last is smaller, and return it."""
    for start in range(0, len(outputs), size):
        metric.update(outputs[start : start + size], targets[start : start + size])
    return metric


def labels(n: int, present: list[int], samples: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n * 1000 + samples)
    outputs = torch.randn(samples, n, generator=draw)
    targets = torch.tensor(present)[torch.randint(len(present), (samples,), generator=draw)]
    return outputs, targets


@pytest.mark.parametrize(("n", "present", "samples"), CASES)
def test_label_metrics_against_scikit_learn(n, present, samples) -> None:
    outputs, targets = labels(n, present, samples)
    predicted, truth = outputs.argmax(1).numpy(), targets.numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns about absent classes
        expected = {
            Accuracy: sk.accuracy_score(truth, predicted),
            BalancedAccuracy: sk.balanced_accuracy_score(truth, predicted),
            MacroF1: sk.f1_score(truth, predicted, average="macro"),
        }
    for kind, value in expected.items():
        # Both divide the same counts in float64; only the order of summation differs.
        assert score(fill(kind(), outputs, targets)) == pytest.approx(value, abs=1e-14)
    matrix = fill(ConfusionMatrix(), outputs, targets).matrix
    assert np.array_equal(
        matrix.numpy(), sk.confusion_matrix(truth, predicted, labels=list(range(n)))
    )


@pytest.mark.parametrize("k", [1, 2, 4])
def test_top_k_against_scikit_learn(k: int) -> None:
    outputs, targets = labels(6, [0, 1, 2, 3, 5], 300)
    expected = sk.top_k_accuracy_score(targets.numpy(), outputs.numpy(), k=k, labels=list(range(6)))
    assert score(fill(TopKAccuracy(k), outputs, targets)) == pytest.approx(expected, abs=1e-14)


def test_top_k_needs_more_than_k_classes() -> None:
    with pytest.raises(InputError, match=r"TopKAccuracy\(3\) is always 1 with 3 classes"):
        TopKAccuracy(3).update(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
    with pytest.raises(InputError, match="at least 1, not 0"):
        TopKAccuracy(0)


@pytest.mark.parametrize("kind", [Accuracy, BalancedAccuracy, MacroF1])
@pytest.mark.parametrize("ignored", [-100, 255])
def test_ignored_labels_are_not_counted(kind, ignored: int) -> None:
    outputs, targets = labels(5, [0, 1, 4], 120)
    padded = targets.clone()
    padded[::3] = ignored
    kept = padded != ignored
    expected = score(fill(kind(), outputs[kept], targets[kept]))
    assert score(fill(kind(ignore_index=ignored), outputs, padded)) == expected
    assert expected != score(fill(kind(), outputs, targets))
    matrix = fill(ConfusionMatrix(ignore_index=ignored), outputs, padded).matrix
    assert int(matrix.sum()) == int(kept.sum())
    top = fill(TopKAccuracy(2, ignore_index=ignored), outputs, padded)
    assert score(top) == score(fill(TopKAccuracy(2), outputs[kept], targets[kept]))


def test_pixels_are_counted_like_samples() -> None:
    draw = torch.Generator().manual_seed(0)
    outputs = torch.randn(2, 4, 3, 5, generator=draw)
    targets = torch.randint(4, (2, 3, 5), generator=draw)
    flat = outputs.permute(0, 2, 3, 1).reshape(-1, 4)
    for kind in (Accuracy, BalancedAccuracy, MacroF1, lambda: TopKAccuracy(2)):
        whole, flattened = kind(), kind()
        whole.update(outputs, targets)
        flattened.update(flat, targets.reshape(-1))
        assert score(whole) == score(flattened)


def test_soft_targets_count_as_their_argmax() -> None:
    outputs, targets = labels(3, [0, 1, 2], 30)
    soft = torch.nn.functional.one_hot(targets, 3) * 0.8 + 0.1
    assert score(fill(Accuracy(), outputs, soft)) == score(fill(Accuracy(), outputs, targets))


def test_a_column_of_labels_is_refused_rather_than_broadcast() -> None:
    outputs, targets = labels(3, [0, 1], 4)
    with pytest.raises(InputError, match=r"Targets have shape \(4, 1\)"):
        Accuracy().update(outputs, targets.unsqueeze(1))


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_multi_label_metrics_against_scikit_learn(threshold: float) -> None:
    draw = torch.Generator().manual_seed(3)
    outputs = torch.randn(90, 5, generator=draw) - 0.5
    targets = (torch.rand(90, 5, generator=draw) < 0.3).float()
    targets[:, 2] = 0  # never true
    outputs[:, 3], targets[:, 3] = -9.0, 0.0  # never true and never predicted
    predicted = (outputs.sigmoid() >= threshold).int().numpy()
    truth = targets.int().numpy()
    expected = {
        MultiLabelMicroF1: sk.f1_score(truth, predicted, average="micro", zero_division=0),
        MultiLabelMacroF1: sk.f1_score(truth, predicted, average="macro", zero_division=0),
        ExactMatch: sk.accuracy_score(truth, predicted),
    }
    for kind, value in expected.items():
        assert score(fill(kind(threshold), outputs, targets)) == pytest.approx(value, abs=1e-14)


def test_multi_label_metrics_need_one_number_per_label() -> None:
    for kind in (MultiLabelMicroF1, MultiLabelMacroF1, ExactMatch):
        with pytest.raises(InputError, match=r"Targets have shape \(4,\), but outputs \(4, 2\)"):
            kind().update(torch.zeros(4, 2), torch.zeros(4))


@pytest.mark.parametrize("columns", [None, 1, 3])
def test_numbers_against_scikit_learn(columns: int | None) -> None:
    draw = torch.Generator().manual_seed(5)
    shape = (100,) if columns is None else (100, columns)
    targets = torch.randn(shape, generator=draw, dtype=torch.float64) * 3 + 20
    outputs = targets + torch.randn(shape, generator=draw, dtype=torch.float64)
    truth, predicted = targets.numpy(), outputs.numpy()
    expected = {
        MeanAbsoluteError: sk.mean_absolute_error(truth, predicted),
        RootMeanSquaredError: sk.root_mean_squared_error(truth, predicted),
        R2: sk.r2_score(truth, predicted),
    }
    for kind, value in expected.items():
        assert score(fill(kind(), outputs, targets)) == pytest.approx(value, rel=1e-12)


def test_r2_is_accurate_for_a_large_mean() -> None:
    draw = torch.Generator().manual_seed(6)
    small = torch.randn(400, generator=draw, dtype=torch.float64)
    noise = 0.1 * torch.randn(400, generator=draw, dtype=torch.float64)
    # A power of two, so that shifting loses few bits; sums of squares would lose about 60 bits.
    shift = 2.0**30
    near = score(fill(R2(), small + noise, small))
    far = score(fill(R2(), small + shift + noise, small + shift))
    assert far == pytest.approx(near, abs=1e-6)
    assert near == pytest.approx(sk.r2_score(small.numpy(), (small + noise).numpy()), rel=1e-12)


def test_r2_of_constant_targets_and_of_one_sample() -> None:
    same = torch.full((4,), 2.0)
    assert score(fill(R2(), same, same)) == 1 == sk.r2_score(same, same)
    assert score(fill(R2(), same + 1, same)) == 0 == sk.r2_score(same, same + 1)
    assert math.isnan(score(fill(R2(), same[:1], same[:1])))


@pytest.mark.parametrize("kind", [MeanAbsoluteError, RootMeanSquaredError, R2])
def test_numbers_are_not_broadcast(kind) -> None:
    with pytest.raises(InputError, match=r"Outputs have shape \(3, 1\) and targets \(3,\)"):
        kind().update(torch.zeros(3, 1), torch.zeros(3))


ALL = [
    (Accuracy, "labels"),
    (BalancedAccuracy, "labels"),
    (MacroF1, "labels"),
    (lambda: TopKAccuracy(2), "labels"),
    (MultiLabelMicroF1, "sets"),
    (MultiLabelMacroF1, "sets"),
    (ExactMatch, "sets"),
    (MeanAbsoluteError, "numbers"),
    (RootMeanSquaredError, "numbers"),
    (R2, "numbers"),
]


def example(kind: str) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(9)
    outputs = torch.randn(60, 4, generator=draw)
    if kind == "labels":
        return outputs, torch.randint(4, (60,), generator=draw)
    if kind == "sets":
        return outputs, torch.randint(2, (60, 4), generator=draw).float()
    return outputs, torch.randn(60, 4, generator=draw)


@pytest.mark.parametrize(("make", "kind"), ALL)
def test_sums_merge_reset_and_start_empty(make, kind: str) -> None:
    outputs, targets = example(kind)
    whole, first, second = make(), make(), make()
    assert math.isnan(score(whole))
    fill(whole, outputs, targets)
    fill(first, outputs[:25], targets[:25])
    fill(second, outputs[25:], targets[25:])
    kept = {name: value.clone() for name, value in second.sums.items()}
    merged = make()
    for part in (first, second, make()):  # a process without samples has no sums
        merged.merge(part.sums)
    assert score(merged) == pytest.approx(score(whole), rel=1e-12)
    merged.update(outputs[:5], targets[:5])
    assert all(torch.equal(second.sums[name], value) for name, value in kept.items())
    assert all(value.dtype in (torch.int64, torch.float64) for value in whole.sums.values())
    whole.reset()
    assert math.isnan(score(whole))
    assert isinstance(whole, Metric)


READS = {"_local_scalar_dense", "bincount", "equal", "masked_select", "nonzero", "unique"}


def device_reads(action: Callable[[], object]) -> set[str]:
    """Return the operations, nested ones included, for which the host would wait for a GPU."""
    with profile() as recorded:
        action()
    found = {event.name.removeprefix("aten::") for event in recorded.function_events}
    assert found, "nothing was recorded"
    return found & READS


def test_device_reads_detects_reads() -> None:
    x = torch.ones(3)
    assert device_reads(lambda: x.sum().item())
    assert device_reads(lambda: x[x > 0])
    assert device_reads(lambda: bool((x == 0).all()))
    assert device_reads(lambda: x.long().bincount())
    assert not device_reads(lambda: torch.where(x > 0, x, 0).sum())


@pytest.mark.parametrize(("make", "kind"), ALL)
def test_update_reads_nothing_from_the_device(make, kind: str) -> None:
    outputs, targets = example(kind)
    metric = make()
    assert not device_reads(lambda: metric.update(outputs, targets))
    assert not device_reads(lambda: metric.update(outputs, targets))


def test_mean_loss_weights_its_batches() -> None:
    loss = MeanLoss()
    assert math.isnan(loss.compute())
    loss.update(torch.tensor(6.0), 2)
    loss.update(torch.tensor(1.0, requires_grad=True), torch.tensor(2))
    assert loss.compute() == 7 / 4
    other = MeanLoss()
    other.update(torch.tensor(5.0), 1.0)
    other.merge(loss.sums)
    assert other.compute() == 12 / 5


def test_mean_loss_sums_in_float64() -> None:
    loss = MeanLoss()
    loss.update(torch.tensor(2.0**25), 1)
    for _ in range(8):
        loss.update(torch.tensor(1.0), 1)
    assert loss.compute() * 9 == pytest.approx(2**25 + 8, rel=1e-15)


def test_mean_loss_does_not_keep_the_callers_tensor() -> None:
    total = torch.tensor(1.0, dtype=torch.float64)
    loss = MeanLoss()
    loss.update(total, 1)
    total += 5
    assert loss.compute() == 1


class Torchmetric:
    """A metric like those of torchmetrics: other argument names, and compute returns a tensor."""

    def __init__(self) -> None:
        self.correct = torch.tensor(0)
        self.n = 0

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.correct = self.correct + (preds.argmax(1) == target).sum()
        self.n += len(target)

    def compute(self) -> Tensor:
        return self.correct / self.n

    def reset(self) -> None:
        self.correct, self.n = torch.tensor(0), 0


def test_a_torchmetrics_metric_is_accepted() -> None:
    outputs, targets = labels(3, [0, 1, 2], 50)
    metric = fill(Torchmetric(), outputs, targets)
    assert isinstance(metric, Metric)
    assert not isinstance(metric, SumMetric)
    found = score(metric)
    assert type(found) is float
    assert found == pytest.approx(score(fill(Accuracy(), outputs, targets)), rel=1e-6)
    fresh = fresh_metrics({"mine": metric}, {})["mine"]
    assert fresh is not metric
    assert fresh.n == 0
    assert metric.n == 50


def test_a_metric_must_be_one_number() -> None:
    class Several(Torchmetric):
        def compute(self) -> Tensor:
            return torch.zeros(3)

    class Named(Torchmetric):
        def compute(self) -> dict[str, float]:  # type: ignore[override]
            return {"a": 1.0}

    with pytest.raises(ArgumentError, match=r"Several.compute\(\) returned a tensor \(3,\)"):
        score(Several())
    with pytest.raises(ArgumentError, match=r"Named.compute\(\) returned {'a': 1.0}"):
        score(Named())


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(ArgumentError, match=r"Unknown metric 'acuracy'\. Did you mean 'accuracy'"):
        fresh_metrics(["acuracy"], {"accuracy": Accuracy})


def test_an_empty_confusion_matrix_is_refused() -> None:
    with pytest.raises(InputError, match="matrix is empty"):
        _ = ConfusionMatrix().matrix
