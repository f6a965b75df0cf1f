"""How ``TensorData`` reads targets: what is doubtful is named, and no name is left unused."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from flambeau import Learner, Regression, TensorData
from flambeau.errors import InputError
from flambeau.task import CustomLoss

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(80, 4, generator=DRAWS)
FIVE = torch.arange(80) % 5
ALMOST_ONE_HOT = nn.functional.one_hot(FIVE, 5)
ALMOST_ONE_HOT[7] = torch.tensor([1, 1, 0, 0, 0])


def learner_of(targets: object, **options: object) -> Learner:
    data = TensorData.from_tensors(X, targets, valid=0, **options)  # pyright: ignore
    return Learner(data, quiet=True)


@pytest.mark.parametrize(
    ("targets", "task", "words"),
    [
        (FIVE.float(), "regression", r"only 5 distinct ones in 80 rows .* could be class numbers"),
        (FIVE * 1.25, "regression", "could be class numbers"),
        (
            torch.arange(80) % 60,
            "regression",
            r"to 59 in 80 rows\. They are read as amounts",
        ),
        (ALMOST_ONE_HOT, "multi_label", "only the rows 7 do not have exactly one 1"),
        (torch.rand(80, 3, generator=DRAWS).softmax(1), "regression", "that sum to 1"),
    ],
)
def test_doubtful_targets_are_named(targets: Tensor, task: str, words: str) -> None:
    learner = learner_of(targets)
    assert learner.plan["task"].value == task
    assert learner.plan["task"].confidence < 0.5
    [finding] = [each for each in learner.doctor().findings if each.code == "doubtful-reading"]
    assert finding.fix
    assert re.search(words, finding.what)
    assert f"note: doubtful: {finding.what}" in learner.data.report()


def test_whole_numbers_with_gaps_may_be_amounts() -> None:
    [reading] = learner_of(7 * (torch.arange(80) % 25)).data.facts()["readings"]
    assert "and each is a class; gaps between them could mean" in reading["what"]


@pytest.mark.parametrize(
    "targets",
    [
        FIVE,
        FIVE.numpy().astype(str),
        (FIVE > 2).float(),
        (FIVE > 2),
        X[:, 0],
        X[:, :2],
        nn.functional.one_hot(FIVE, 5),
        torch.randint(0, 2, (80, 3), generator=DRAWS),
        torch.randint(1000, 9000, (80,), generator=DRAWS),
        torch.where(FIVE == 4, -100, FIVE),
    ],
)
def test_clear_targets_have_no_doubts(targets: Tensor) -> None:
    assert "readings" not in learner_of(targets).data.facts()


def test_a_task_of_the_user_leaves_no_doubt() -> None:
    """Neither as a task, nor as a choice, nor as an argument of the data."""
    data = TensorData.from_tensors(X, FIVE.float(), valid=0)
    for options in (
        {"task": Regression(["value"])},
        {"task": CustomLoss(lambda outputs, batch: (outputs[:, 0] - batch.target).square())},
        {"choices": {"task": "regression"}},
    ):
        learner = Learner(data, nn.Linear(4, 1), quiet=True, **options)
        assert "doubtful-reading" not in learner.doctor().codes
    assert "doubtful-reading" not in learner_of(FIVE.float(), task="regression").doctor().codes


@pytest.mark.parametrize("shape", [(80,), (80, 1)])
def test_floats_of_0_and_1_are_labels_in_one_column_too(shape: tuple[int, ...]) -> None:
    learner = learner_of((FIVE > 2).float().reshape(shape))
    assert learner.plan["task"].value == "classification"
    if len(shape) == 2:
        with pytest.raises(InputError, match=r"shape \(rows, 1\).*Select the column"):
            learner.fit(1)


def test_targets_with_class_names_are_classes() -> None:
    names = ["a", "b", "c", "d", "e"]
    floats = learner_of(FIVE.float(), class_names=names)
    assert (floats.plan["task"].value, floats.task.output_names) == ("classification", tuple(names))
    words = [f"word {number % 60:02}" for number in range(80)]  # few rows each
    learner = learner_of(words)
    assert learner.plan["task"].value == "classification"
    assert learner.task.output_names == tuple(sorted(set(words)))


def test_amounts_have_the_names_that_were_given() -> None:
    learner = learner_of(X[:, :2], class_names=["height", "width"])
    learner.fit(1)
    assert list(learner.predict(X[0]).values) == ["height", "width"]
    assert learner_of(X[:, 0], class_names=["price"]).task.output_names == ("price",)
    with pytest.raises(InputError, match=r"3 names, but the targets .* amounts .* in 2 columns"):
        learner_of(X[:, :2], class_names=["a", "b", "c"]).fit(1)


def test_labels_of_the_parts_are_of_one_kind() -> None:
    words = ["no", "yes"] * 40
    for valid in (torch.tensor([0, 1]), np.array([1.0, 0.0]), [1, 0]):
        with pytest.raises(InputError, match=r"valid targets have dtype .* train are strings"):
            TensorData.from_tensors(X, words, valid=(X[:2], valid))


def test_the_report_counts_classes_only_of_labels() -> None:
    ages = torch.randint(18, 90, (80,), generator=DRAWS)
    data = TensorData.from_tensors(X, ages, valid=0)
    distinct = len(np.unique(ages.numpy()))
    assert "train classes" not in data.report()
    assert f"train targets: {distinct} distinct values from {ages.min()} to" in data.report()
    many = TensorData.from_tensors(torch.ones(120, 1), torch.arange(120) % 40, valid=0).report()
    assert "29 (3) and 10 more" in many
    assert "train classes: 0 (16), 1 (16)" in TensorData.from_tensors(X, FIVE, valid=0).report()


def test_notes_of_the_split_have_the_names_of_the_classes() -> None:
    words = ["yes"] * 70 + ["no"] * 9 + ["never"]
    data = TensorData.from_tensors(X, words)
    assert data.split.notes == ("classes with a single row, kept in train: never",)
    numbers = torch.tensor([0] * 70 + [1] * 9 + [2])
    named = TensorData.from_tensors(X, numbers, class_names=["yes", "no", "never"])
    assert named.split.notes == data.split.notes
    plain = TensorData.from_tensors(X, numbers)
    assert plain.split.notes == ("classes with a single row, kept in train: 2",)
    for part in ("train", "valid"):
        assert named.split.part(part).tolist() == plain.split.part(part).tolist()


@pytest.mark.parametrize(
    ("targets", "task", "words"),
    [
        ((FIVE > 2).float(), "regression", "first 20 train samples are floats, all 0 or 1"),
        ((FIVE > 2).float()[:, None], "regression", "they are read as amounts, with the mean"),
        (nn.functional.one_hot(FIVE, 5), "multi_label", "exactly one 1 in 5 columns, as one-hot"),
        (torch.full((80, 4), 0.25), "regression", "that sum to 1"),
    ],
)
def test_doubtful_targets_of_loaders_are_named(targets: Tensor, task: str, words: str) -> None:
    loader = DataLoader(TensorDataset(X, targets), batch_size=10, shuffle=True)
    learner = Learner(TensorData.from_loaders(loader), nn.Linear(4, 1), quiet=True)
    assert learner.plan["task"].value == task
    [reading] = learner.data.facts()["readings"]
    assert words in reading["what"]
    assert learner.plan["task"].confidence < 0.5
    for options in ({"task": task}, {"class_names": ["a", "b", "c", "d", "e"]}):
        given = TensorData.from_loaders(loader, **options)  # pyright: ignore
        assert "readings" not in given.facts()


def test_clear_targets_of_loaders_have_no_doubts() -> None:
    for targets in (FIVE, X[:, 0], X[:, :2], torch.randint(0, 2, (80, 3), generator=DRAWS).float()):
        loader = DataLoader(TensorDataset(X, targets), batch_size=10, shuffle=True)
        assert "readings" not in TensorData.from_loaders(loader).facts()
    ragged = [(X[:4], torch.zeros(4, length)) for length in (3, 5)]  # sequences of two lengths
    assert "target_shape" in TensorData.from_loaders(ragged).facts()


def test_targets_beyond_the_range_of_their_variance_are_refused() -> None:
    y = torch.linspace(1, 2, 20, dtype=torch.float64) * 1e200
    data = TensorData.from_tensors(X[:20], y)
    with pytest.raises(InputError, match="too large to be standardised"):
        data.facts()
