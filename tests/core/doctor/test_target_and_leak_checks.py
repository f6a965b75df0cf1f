"""Mistakes in classes, targets and parts: each check finds its own, and no other check does."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Data, Learner, TensorData
from flambeau.data.split import Split
from flambeau.doctor import Finding, TrainingSetup, leak_checks
from flambeau.task import Classification, MultiLabel, Regression
from flambeau.task.classification_metrics import Accuracy, ExactMatch
from flambeau.task.regression_metrics import MeanAbsoluteError


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(x: Tensor, n_classes: int = 2) -> Tensor:
    """Return labels of equal class sizes that depend on all columns."""
    order = x.sum(1).argsort().argsort()
    return order * n_classes // len(x)


def only(learner: Learner, code: str, *, full: bool = False) -> Finding:
    """Return the only finding, which must have this code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # creating the data may warn about it too
        report = learner.doctor(full=full)
    assert set(report.codes) == {code}, str(report)
    assert report.findings[0].page == f"docs/doctor.md#{code}"
    assert report.findings[0].evidence
    return report.findings[0]


def assert_no_findings(data: Data, model: nn.Module | None = None, task: Any = None) -> None:
    report = Learner(data, model, task=task, quiet=True).doctor(full=True)
    assert report.ok, str(report)


# ---------------------------------------------------------------- classes and targets


def test_a_split_without_a_class_in_valid() -> None:
    x = draws(400, 5)
    y = labels(x, 4)
    rows = torch.arange(400)
    first = [*rows[y != 3][:240].tolist(), *rows[y == 3].tolist()]
    rest = [int(row) for row in rows if int(row) not in set(first)]
    data = TensorData.from_tensors(x, y, split=Split.from_indices(first, rest))
    finding = only(Learner(data, quiet=True), "class-not-in-valid")
    assert "class 3" in finding.what
    assert finding.evidence["train rows of the first"] == 100


def test_a_rare_class_may_be_absent_from_valid() -> None:
    x = draws(400, 5)
    y = labels(x)
    y[:10] = 2
    valid = list(range(300, 400))
    assert_no_findings(TensorData.from_tensors(x, y, split=Split.from_indices(range(300), valid)))


def test_accuracy_as_the_only_metric_of_a_large_class() -> None:
    x = draws(400, 5)
    y = (x.sum(1) > 3.7).long()
    assert 0.02 < float(y.float().mean()) < 0.1
    data = TensorData.from_tensors(x, y)
    learner = Learner(data, choices={"metrics": ["accuracy"]}, quiet=True)
    finding = only(learner, "class-imbalance")
    assert finding.evidence["share"] > 0.9
    # The plan adds balanced accuracy by default, as the finding recommends.
    assert_no_findings(data)


@pytest.mark.parametrize("columns", [1, 2])
def test_constant_targets(columns: int) -> None:
    x = draws(200, 5)
    y = torch.stack([torch.full((200,), 7.0), x.sum(1)], 1)[:, :columns]
    data = TensorData.from_tensors(x, y, task="regression")
    learner = Learner(data, nn.Linear(5, columns), quiet=True)
    finding = only(learner, "constant-target")
    assert "is 7 in all 160 train rows" in finding.what
    assert finding.severity == ("error" if columns == 1 else "warning")


def test_a_label_that_no_sample_has() -> None:
    x = draws(200, 5)
    y = torch.stack([x[:, 0] > 0, torch.zeros(200, dtype=torch.bool)], 1)
    data = TensorData.from_tensors(x, y, task="multi_label")
    assert "'1'" not in only(Learner(data, quiet=True), "constant-target").what


@pytest.mark.parametrize(
    ("task", "y"),
    [
        (Regression(metrics={"accuracy": Accuracy()}), lambda x: x.sum(1)),
        (Classification(["a", "b"], metrics={"mae": MeanAbsoluteError()}), labels),
        (Classification(["a", "b"], metrics={"exact": ExactMatch(0.5)}), labels),
        (
            MultiLabel(["a", "b"], metrics={"accuracy": Accuracy()}),
            lambda x: (x[:, :2] > 0).float(),
        ),
    ],
)
def test_metrics_of_another_task(task: Any, y: Any) -> None:
    x = draws(200, 5)
    width = 1 if isinstance(task, Regression) else 2
    learner = Learner(TensorData.from_tensors(x, y(x)), nn.Linear(5, width), task=task, quiet=True)
    finding = only(learner, "metric-for-task")
    assert finding.evidence["loss"] == task.loss_name


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_labels_of_minus_one_in_user_loaders(low: float) -> None:
    x = draws(64, 5)
    y = torch.where(x[:, :2] > 0, 1.0, low)
    batches = [(x[:32], y[:32]), (x[32:], y[32:])]
    data = TensorData.from_loaders(batches, batches, task="multi_label", class_names=["a", "b"])
    learner = Learner(data, nn.Linear(5, 2), choices={"epochs": 20}, quiet=True)
    if low == 0:
        assert learner.doctor().ok, str(learner.doctor())
    else:
        finding = only(learner, "label-range")
        assert "range from -1 to 1" in finding.what
        assert "(labels + 1) / 2" in finding.fix
        assert finding.severity == "error"


@pytest.mark.parametrize("ignored", [-100, 9])
def test_labels_that_are_ignored_are_not_out_of_range(ignored: int) -> None:
    x = draws(64, 5)
    y = labels(x)
    y[::8] = ignored
    batches = [(x[:32], y[:32]), (x[32:], y[32:])]
    data = TensorData.from_loaders(batches, batches)

    def found(ignore_index: int | None) -> bool:
        task = Classification(["a", "b"], ignore_index=ignore_index)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = Learner(data, nn.Linear(5, 2), task=task, quiet=True).doctor()
        return "label-range" in report.codes

    assert not found(ignored)
    assert found(None)


def test_probabilities_that_do_not_sum_to_one() -> None:
    x = draws(200, 5)
    y = torch.sigmoid(x[:, :2])
    data = TensorData.from_tensors(x, y, task="regression")
    learner = Learner(data, nn.Linear(5, 2), task=Classification(["a", "b"]), quiet=True)
    assert "sums per sample range" in only(learner, "label-range").what


# ---------------------------------------------------------------- copies, groups, leaks


def test_copies_of_train_rows_in_valid() -> None:
    x = draws(300, 5)
    x[250:260] = x[10:20]
    y = labels(x)
    y[250:253] = 1 - y[10:13]
    data = TensorData.from_tensors(x, y, split=Split.from_indices(range(200), range(200, 300)))
    finding = only(Learner(data, quiet=True), "duplicates-across-parts")
    assert "row 250 is train row 10" in finding.what
    assert "3 of them with another target" in finding.what
    measured = {"copies": 10, "compared": 100, "share": 0.1, "with another target": 3}
    assert finding.evidence == measured
    assert finding.severity == "warning"


@pytest.mark.parametrize("whole_numbers", [True, False])
def test_copies_are_found_among_more_rows_than_are_compared(
    whole_numbers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leak_checks, "_MOST_TRAIN", 500)
    monkeypatch.setattr(leak_checks, "_MOST_OTHER", 500)
    x = draws(12_000, 5)
    if whole_numbers:
        x = (x * 50).round()
    x[10_000:10_400] = x[:4_000:10]  # the first 400 of 2,000
    data = TensorData.from_tensors(
        x, labels(x), split=Split.from_indices(range(10_000), range(10_000, 12_000))
    )
    learner = Learner(data, quiet=True)
    setup = TrainingSetup(data, learner.plan.values, lambda: learner.built)
    [finding] = leak_checks.duplicates_across_parts(setup)
    assert 50 < finding.evidence["compared"] < 200
    assert finding.evidence["share"] == pytest.approx(0.2, abs=0.12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.float16])
def test_copies_are_found_in_any_dtype(dtype: torch.dtype) -> None:
    x = (draws(300, 8, 8).sigmoid() * 255).to(dtype)
    x[250:] = x[10:60]
    y = torch.arange(300) % 2
    data = TensorData.from_tensors(x, y, split=Split.from_indices(range(200), range(200, 300)))
    report = Learner(data, quiet=True).doctor()
    assert "duplicates-across-parts" in report.codes


def test_rows_of_few_values_are_equal_by_chance() -> None:
    x = (draws(400, 6) > 0).float()
    assert len(x.unique(dim=0)) <= 64
    assert_no_findings(TensorData.from_tensors(x, (x[:, 0] + x[:, 1] > 1).long()))


class WithPerson(nn.Module):
    """Takes a feature vector and the number of a person."""

    def __init__(self) -> None:
        super().__init__()
        self.named = nn.Embedding(200, 3)
        self.head = nn.Linear(8, 2)

    def forward(self, *inputs: Tensor) -> Tensor:
        x, who = inputs
        return self.head(torch.cat([x, self.named(who)], 1))


@pytest.mark.parametrize(
    ("name", "shared"),
    [("patient_id", True), ("speaker", True), ("user_id", False), ("patient_id", False)],
)
def test_patients_in_train_and_valid(name: str, shared: bool) -> None:
    x = draws(400, 5)
    who = torch.arange(400) // 4
    if not shared and name == "patient_id":
        split = Split.by_group(who.numpy())
    else:
        split = Split.random(400, valid=0.2)
    data = TensorData.from_tensors({"x": x, name: who}, labels(x), split=split)
    if not shared:
        return assert_no_findings(data, WithPerson())
    finding = only(Learner(data, WithPerson(), quiet=True), "groups-across-parts")
    assert name in finding.what
    assert f"Split.by_group({name})" in finding.fix
    return None


def test_a_column_that_is_the_label() -> None:
    x = draws(300, 5)
    y = labels(x, 3)
    x[:, 3] = torch.tensor([0.5, -1.0, 2.0])[y]
    finding = only(Learner(TensorData.from_tensors(x, y), quiet=True), "leaking-column")
    assert "input[:, 3]" in finding.what
    assert finding.evidence["rows"] == 240


@pytest.mark.parametrize("factor", [2.54, -2.54])
def test_a_column_that_is_the_target_in_other_units(factor: float) -> None:
    x = draws(300, 5)
    y = x[:, :3].sum(1) + 0.3 * draws(300, seed=1)
    x[:, 4] = factor * y + 1
    finding = only(Learner(TensorData.from_tensors(x, y), quiet=True), "leaking-column")
    assert "input[:, 4]" in finding.what


@pytest.mark.parametrize("kind", ["a threshold", "one column", "noise"])
def test_a_strongly_related_column_is_not_a_leak(kind: str) -> None:
    x = draws(300, 5)
    if kind == "a threshold":
        assert_no_findings(TensorData.from_tensors(x, (x[:, 0] > 0).long()))
    elif kind == "one column":
        assert_no_findings(TensorData.from_tensors(x[:, :1], 2 * x[:, 0]))
    else:
        assert_no_findings(TensorData.from_tensors(x, x[:, 0] + 0.05 * draws(300, seed=1)))


def test_near_copies_are_found_by_the_full_checks() -> None:
    x = draws(300, 40)
    x[250:260] = x[10:20] + 1e-3 * draws(10, 40, seed=1)
    data = TensorData.from_tensors(
        x, labels(x), split=Split.from_indices(range(200), range(200, 300))
    )
    learner = Learner(data, quiet=True)
    assert learner.doctor().ok
    finding = only(learner, "near-duplicates", full=True)
    assert "row 250 is almost train row 10" in finding.what
    assert finding.evidence["rows"] == 10
