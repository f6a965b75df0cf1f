"""Class numbers with -100, which torch's losses ignore, are labels and samples without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from flambeau import Learner, TensorData
from flambeau.data.split import Split
from flambeau.data.targets import read_labels
from flambeau.errors import FlambeauError, FlambeauWarning, InputError, PlanError

N, N_TRAIN = 60, 40
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
FULL = (X[:, 0] > 0).long()
IGNORED = torch.arange(N) % 4 == 1
LABELS = torch.where(IGNORED, -100, FULL)
SPLIT = Split.from_indices(range(N_TRAIN), range(N_TRAIN, N))


def learner(y: Tensor, **arguments: Any) -> Learner:
    choices = {"batch_size": 20, "bn": "train", "probe": "off", **arguments.pop("choices", {})}
    data = TensorData.from_tensors(X, y, split=SPLIT, **arguments)
    return Learner(data, choices=choices, quiet=True)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8])
def test_the_plan_names_the_rows_without_a_label(dtype: torch.dtype) -> None:
    run = learner(LABELS.to(dtype))
    choice = run.plan["task"]
    assert choice.value == "classification"
    assert "Those with -100 (10) have no label" in choice.reason
    assert run.task.output_names == ("0", "1")
    assert run.task.ignore_index == -100
    assert (
        run.data.facts()["class_counts"]
        == torch.bincount(LABELS[:N_TRAIN][~IGNORED[:N_TRAIN]]).tolist()
    )


def test_rows_without_a_label_do_not_count() -> None:
    run = learner(LABELS)
    with pytest.warns(FlambeauWarning, match=r"no-target\] \d+ of the first 20 samples"):
        run.fit(1, lr=0.05)
    counted = torch.arange(N_TRAIN, N)[~IGNORED[N_TRAIN:]]
    predicted = torch.tensor([int(p.label) for p in run.predict(X[counted])])
    expected = float((predicted == FULL[counted]).float().mean())
    assert run.evaluate()["accuracy"] == pytest.approx(expected)
    found = run.interpret()
    assert len(found.predictions) in (len(counted), N - N_TRAIN)
    assert "class-not-in-valid" not in run.doctor().codes


def test_the_label_can_be_a_measurement() -> None:
    assert learner(LABELS, task="regression").task.kind == "regression"
    assert learner(LABELS, choices={"task": "regression"}).task.kind == "regression"


def test_many_classes_and_given_names() -> None:
    many = torch.where(torch.arange(2000) % 7 == 0, -100, torch.arange(2000) % 30)
    data = TensorData.from_tensors(torch.randn(2000, 2), many)
    assert Learner(data, quiet=True).task.n_outputs == 30
    with pytest.warns(FlambeauWarning, match=r"class-not-in-train\] .*'never'"):
        task = learner(LABELS, class_names=["no", "yes", "never"]).task
    assert task.output_names == ("no", "yes", "never")


class Pairs(Dataset[Any]):
    def __init__(self, rows: slice) -> None:
        self.x, self.y = X[rows], LABELS[rows]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index], self.y[index]


def test_data_that_are_read_in_training_too() -> None:
    parts = [Pairs(slice(0, N_TRAIN)), Pairs(slice(N_TRAIN, N))]
    loaders = [DataLoader(part, batch_size=20, shuffle=not i) for i, part in enumerate(parts)]
    for data in (
        TensorData.from_datasets(*parts, n_classes=2),
        TensorData.from_datasets(*(TensorDataset(part.x, part.y) for part in parts)),
        TensorData.from_loaders(*loaders, n_classes=2),
    ):
        run = Learner(data, choices={"probe": "off"}, quiet=True)
        assert run.task.ignore_index == -100
        assert 0 <= run.evaluate()["accuracy"] <= 1


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.where(IGNORED, -100.0, FULL.float()), "-100, which torch's cross entropy ignores"),
        (torch.where(IGNORED, -1, FULL), "negative number marks samples that do not count"),
        (LABELS.view(-1, 1), "-100, which torch's cross entropy ignores"),
        (LABELS.view(-1, 1).expand(-1, 4), "-100, which torch's cross entropy ignores"),
    ],
    ids=["float", "-1", "column", "several"],
)
def test_other_targets_with_such_a_number_are_refused(y: Tensor, message: str) -> None:
    with pytest.raises(FlambeauError, match=message):
        learner(y).plan["task"]
        learner(y).fit(1)


def test_a_label_that_only_valid_has_is_named() -> None:
    y = torch.where(torch.arange(N) < N_TRAIN, FULL, LABELS)
    with pytest.raises(InputError, match=r"valid targets .*-100.* ignore_index=-100"):
        learner(y).fit(1)


@pytest.mark.parametrize("labels", [[0, 1, -100, 1], [0.0, 1.0, -100.0, 0.0]])
def test_labels_of_other_domains_are_refused(labels: list[float]) -> None:
    with pytest.raises(InputError, match=r"row 2 .*-100.*remove .*task=\"regression\""):
        read_labels(labels)
    assert read_labels(labels, task="regression").kind == "regression"
    assert read_labels([-100, -90, -85, 3]).kind == "regression"


def _float_loaders(targets: torch.Tensor, **given: Any) -> Learner:
    samples = TensorDataset(torch.randn(len(targets), 6), targets)
    train, valid = DataLoader(samples, 8, shuffle=True), DataLoader(samples, 8)
    return Learner(
        TensorData.from_loaders(train, valid, **given), torch.nn.Linear(6, 1), quiet=True
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("ndim", [1, 2])
def test_float_labels_with_the_ignored_label_are_asked_in_loaders(dtype: Any, ndim: int) -> None:
    targets = (torch.arange(40) % 3).to(dtype)
    targets[::3] = -100
    targets = targets.reshape(40, *[1] * (ndim - 1))
    with pytest.raises(PlanError, match=r"first \d+ train samples .*-100.*targets\.long\(\)"):
        _ = _float_loaders(targets).plan
    measured = _float_loaders(targets.float(), task="regression")
    assert measured.plan["task"].value == "regression"


@pytest.mark.parametrize("others", [[0.5, 1.0, 2.0], [-3.0, 1.0, 2.0], [-100.0] * 3])
def test_measurements_of_minus_100_are_amounts_in_loaders(others: list[float]) -> None:
    targets = torch.tensor([*others, -100.0] * 10)
    assert _float_loaders(targets).plan["task"].value == "regression"
