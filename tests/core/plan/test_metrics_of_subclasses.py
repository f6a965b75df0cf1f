"""A domain's task that derives from one of core has the metrics of its parent's rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from flambeau import Classification, MultiLabel, Regression, Task
from flambeau.domain import rules_of
from flambeau.errors import PlanError
from flambeau.plan import Plan
from flambeau.task import Accuracy, MacroF1, Metric
from flambeau.tensors.domain import DOMAIN

NAMES = ["a", "b"]


class Grading(Classification):
    """Inherits everything."""


class Passing(Classification):
    """Passes its arguments on, and knows one more metric."""

    def __init__(self, classes: Any, **arguments: Any) -> None:
        super().__init__(classes, **arguments)

    @staticmethod
    def known_metrics(ignore_index: int | None = None) -> dict[str, Any]:
        return {**Classification.known_metrics(ignore_index), "mine": MacroF1}


class Fixed(Classification):
    """Takes no metrics."""

    def __init__(self, classes: Any) -> None:
        super().__init__(classes)


class Own(Classification):
    def metrics(self) -> Mapping[str, Metric]:
        return {"own": Accuracy()}


class Tags(MultiLabel):
    pass


class Amount(Regression):
    pass


TASKS: dict[str, type[Task]] = {
    "grading": Grading,
    "passing": Passing,
    "fixed": Fixed,
    "own": Own,
    "tags": Tags,
    "amount": Amount,
}
DERIVED = replace(DOMAIN, tasks={**DOMAIN.tasks, **TASKS})


def plan(task: str, counts: tuple[int, int] = (50, 50), **choices: Any) -> Plan:
    facts = {
        "n_train": 100,
        "split": "given",
        "inputs": {"input": {"shape": [3], "dtype": "float32"}},
        "targets": {"target": {"shape": [], "dtype": "int64"}},
        "in_memory": True,
        "target_dtype": "int64",
        "target_shape": [],
        "class_names": NAMES,
        "class_counts": list(counts),
    }
    return Plan.derive(rules_of(DERIVED), facts, {"task": task, **choices})


PARENTS = [
    ("grading", "classification"),
    ("passing", "classification"),
    ("tags", "multi_label"),
    ("amount", "regression"),
]


@pytest.mark.parametrize(("task", "parent"), PARENTS)
@pytest.mark.parametrize("counts", [(50, 50), (90, 10)], ids=["balanced", "imbalanced"])
def test_a_subclass_has_the_metrics_of_its_parent(
    task: str, parent: str, counts: tuple[int, int]
) -> None:
    found, expected = (plan(name, counts)["metrics"] for name in (task, parent))
    assert found.value == expected.value
    assert found.value
    assert found.reason == expected.reason
    assert found.alternatives == expected.alternatives
    names = NAMES if parent != "regression" else ["y"]
    made: Any = TASKS[task]
    assert list(made(names, metrics=found.value).metrics()) == found.value


def test_the_names_that_it_knows_are_accepted() -> None:
    assert plan("grading", metrics=["auroc"])["metrics"].value == ["auroc"]
    assert plan("passing", metrics=["mine"])["metrics"].value == ["mine"]
    with pytest.raises(PlanError, match=r"a list of accuracy, auroc.*for the task 'grading'"):
        plan("grading", metrics=["mine"])


@pytest.mark.parametrize("task", ["fixed", "own"])
def test_a_task_with_metrics_of_its_own_says_so(task: str) -> None:
    choice = plan(task)["metrics"]
    assert choice.value == []
    assert choice.reason == f"The task {task!r} defines its metrics."
    with pytest.raises(PlanError, match="defines"):
        plan(task, metrics=["accuracy"])
