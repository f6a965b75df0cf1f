"""``Task.kind``: doctor, plan and reports treat a user-defined task as its kind."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flambeau import Classification, Learner, MultiLabel, Regression, Task, TensorData
from flambeau.data import Batch
from flambeau.report import Confusion
from flambeau.task import Accuracy, Metric, RootMeanSquaredError
from flambeau.tuning.auto_run import AutoRun

NAMES = ("low", "high")


class Derived(Classification):
    """Inherits kind, names and loss."""


class OwnLoss(Classification):
    """Expects probabilities, as the doctor must not warn about."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        picked = outputs.gather(1, batch.target.unsqueeze(1))
        return -picked.log().sum(), float(len(batch))


class Plain(Task):
    """A classification of two classes that derives from ``Task`` alone."""

    kind = "classification"

    @property
    def n_outputs(self) -> int:
        return 2

    @property
    def output_names(self) -> tuple[str, ...]:
        return NAMES

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        return cross_entropy(outputs, batch.target, reduction="sum"), float(len(batch))

    def metrics(self) -> Mapping[str, Metric]:
        return {"accuracy": Accuracy()}


def learner(task: Task, model: nn.Module | None = None, share: float = 0.5) -> Learner:
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    labels = (x[:, 0] > x[:, 0].quantile(1 - share)).long()
    data = TensorData.from_tensors(x, labels, class_names=NAMES)
    return Learner(data, model or nn.Linear(4, 2), task=task, quiet=True)


def codes(made: Learner) -> set[str]:
    return {finding.code for finding in made.doctor().findings}


def test_a_subclass_inherits_kind_and_names() -> None:
    assert [task.kind for task in (Task(), Derived(NAMES), MultiLabel(NAMES), Regression())] == [
        "",
        "classification",
        "multi_label",
        "regression",
    ]
    assert Derived(NAMES).output_names == MultiLabel(NAMES).output_names == NAMES
    assert Regression(["width", "height"]).output_names == ("width", "height")
    assert Task().output_names == ()


def test_only_core_losses_have_a_standard_name() -> None:
    tasks = (Derived(NAMES), MultiLabel(NAMES), Regression(loss="huber"), OwnLoss(NAMES), Plain())
    assert [task.standard_loss for task in tasks] == [
        "cross_entropy",
        "binary_cross_entropy",
        "huber",
        "",
        "",
    ]


def test_the_doctor_checks_a_derived_task() -> None:
    softmax = nn.Sequential(nn.Linear(4, 2), nn.Softmax(1))
    assert "softmax-before-loss" in codes(learner(Derived(NAMES), softmax))
    assert "softmax-before-loss" not in codes(learner(OwnLoss(NAMES), softmax))


@pytest.mark.parametrize("task", [Derived(NAMES), Plain()])
def test_the_doctor_checks_the_labels_of_a_kind(task: Task) -> None:
    assert "class-imbalance" in codes(learner(task, share=0.03))
    assert "class-imbalance" not in codes(learner(task))


def test_the_doctor_checks_the_metrics_of_a_kind() -> None:
    class Wrong(Plain):
        def metrics(self) -> Mapping[str, Metric]:
            return {"error": RootMeanSquaredError()}

    [finding] = [
        each for each in learner(Wrong()).doctor().findings if each.code == "metric-for-task"
    ]
    assert finding.fix == "Use a metric that fits the task."


@pytest.mark.parametrize("task", [Derived(NAMES), Plain()])
def test_a_report_shows_the_classes_of_a_kind(task: Task) -> None:
    made = learner(task)
    found = made.interpret()
    assert found.predictions.kind == "classification"
    assert found.names == NAMES
    confusion = found.confusion()
    assert isinstance(confusion, Confusion)
    with torch.no_grad():
        predicted = torch.cat([made.model(batch.input) for batch in made.built.batches("valid")])
    targets = torch.cat([batch.target for batch in made.built.batches("valid")])
    chosen = predicted.argmax(1)
    assert confusion.matrix.tolist() == [
        [int(((targets == target) & (chosen == label)).sum()) for label in (0, 1)]
        for target in (0, 1)
    ]
    assert {"accuracy", "balanced_accuracy"} <= found.intervals.keys()
    assert "majority class" in found.baselines


def test_a_kind_without_names_has_scores_only() -> None:
    class Unnamed(Plain):
        @property
        def output_names(self) -> tuple[str, ...]:
            return ()

    found = learner(Unnamed()).interpret()
    assert found.predictions.kind == "other"
    assert found.predictions.scores.keys() == {"loss", "accuracy"}


def test_fit_auto_watches_the_metric_of_a_classification() -> None:
    for task, monitor in ((Plain(), "valid_accuracy"), (Regression(), "valid_loss")):
        run = AutoRun(60.0)
        run.choose_monitor(task, has_valid=True)
        assert run.monitor == monitor
