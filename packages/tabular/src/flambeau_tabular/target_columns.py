"""``TargetColumns``: from the targets of a table to facts, tensors and arguments of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flambeau.data.data import select_values
from flambeau.data.split import Rows, Split
from flambeau.data.targets import Targets
from flambeau.errors import InputError, PlanError
from flambeau.task import Classification, Regression
from flambeau.task.log_link import Gamma, Poisson, Tweedie
from flambeau.task.named_losses import loss_arguments
from flambeau.task.quantiles import LEVELS, QuantileRegression
from flambeau.task.task import Task
from flambeau.tensors.base_data import describe_target
from flambeau_tabular.options import LOG_LINK_TASKS, NUMBER_TASKS, TabularOptions
from flambeau_tabular.task_arguments import number_task_arguments

TARGET = "target"
"""The name of a single target in a batch."""

SEVERAL = "combined"
"""The task of several targets of different kinds; see `flambeau.task.combined`."""

_TASKS: Mapping[str, type[Task]] = {
    "classification": Classification,
    "regression": Regression,
    "quantile_regression": QuantileRegression,
    "poisson": Poisson,
    "gamma": Gamma,
    "tweedie": Tweedie,
}
_METRICS = {"classification": ["accuracy", "auroc"]}


@dataclass(frozen=True, eq=False)
class TargetColumns:
    """The targets of a table by their name in a batch, with what a plan and a task need of them.

    Attributes:
        by_name: A single entry "target"; or those of several kinds by the name of their column.
        options: How the table is read.
    """

    by_name: Mapping[str, Targets]
    options: TabularOptions

    @property
    def is_single(self) -> bool:
        """Whether the targets are of one kind, and have one task."""
        return self.by_name.keys() == {TARGET}

    @property
    def kind(self) -> str:
        """The task that follows from the targets."""
        return self.by_name[TARGET].kind if self.is_single else SEVERAL

    @property
    def single(self) -> Targets:
        """The targets of one kind.

        Raises:
            InputError: They are of several kinds.
        """
        if not self.is_single:
            raise InputError(
                f"There are several targets of different kinds ({', '.join(self.by_name)}). Read "
                "them by name: data.several_targets."
            )
        return self.by_name[TARGET]

    @property
    def reason(self) -> str:
        """The property of the targets that decided the task."""
        if self.is_single:
            return self.single.reason
        return "; ".join(f"{name}: {each.reason}" for name, each in self.by_name.items())

    def own_tasks(self) -> dict[str, str]:
        """Return the name of the task of each of several targets.

        Raises:
            InputError: A task does not fit the target.
        """
        given = self.options.target_tasks or {}
        chosen = {name: str(given.get(name, each.kind)) for name, each in self.by_name.items()}
        for name, task in chosen.items():
            kind = "regression" if task in NUMBER_TASKS else task
            if kind != (own := self.by_name[name]).kind:
                raise InputError(
                    f"target_tasks has {task!r} for {name!r}, but it was read as {own.kind}: "
                    f"{own.reason}."
                )
        return chosen

    def tensors(self, rows: Rows) -> dict[str, Tensor]:
        """Return the targets of rows by their name in a batch; class numbers in a small type."""
        return {name: each.select(rows).values for name, each in self.by_name.items()}

    def batch_dtypes(self) -> dict[str, torch.dtype]:
        """Return the types in batches of the targets that are stored in smaller ones."""
        return {
            name: torch.int64
            for name, each in self.by_name.items()
            if each.kind == "classification"
        }

    # ------------------------------------------------------------ plan

    def facts(self, train: Rows, weights: Tensor | None) -> dict[str, Any]:
        """Return the facts about the targets of the train rows."""
        found = {"label_kind": self.kind, "target_reason": self.reason}
        if not self.is_single:
            tasks = self.own_tasks()
            parts = {
                name: {"task": tasks[name], **_facts_of(each, train, None)}
                for name, each in self.by_name.items()
            }
            return {**found, "several_targets": parts}
        return {**found, **_facts_of(self.single, train, weights)}

    def n_outputs(self, values: Mapping[str, Any]) -> list[tuple[str, int]]:
        """Return task and number of outputs of each target, in the order of the outputs."""
        tasks = {TARGET: values["task"]} if self.is_single else self.own_tasks()
        return [
            (
                task,
                len(self.by_name[name].names)
                * (len(LEVELS) if task == "quantile_regression" else 1),
            )
            for name, task in tasks.items()
        ]

    def check_split(self, split: Split) -> None:
        """Check that every class with rows in a part has rows in train, and that there are two.

        Raises:
            InputError: There is a single class.
            SplitError: A class has no rows in train.
        """
        for name, each in self.by_name.items():
            if each.kind != "classification":
                continue
            if len(each.names) < 2:
                which = "The target" if name == TARGET else f"The target {name!r}"
                raise InputError(
                    f"{which} has the single class {', '.join(each.names)!r} in all "
                    f"{len(each.values):,} rows. Classification needs at least two classes: give "
                    "rows of another class."
                )
            each.check_split(split, "rows")

    # ------------------------------------------------------------ task

    def task_arguments(
        self,
        split: Split,
        weights: Tensor | None,
        offsets: Tensor | None,
        values: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the arguments of the plan's task.

        Args:
            split: The parts; only train rows have an influence.
            weights: Weights of the train rows.
            offsets: Logarithms of the exposure of the train rows.
            values: The plan's values.

        Raises:
            InputError: A target is constant, or has another range than its task needs.
            PlanError: There is an exposure, but no task that uses it.
            SplitError: A class has no train rows.
        """
        self.check_split(split)
        if self.is_single:
            return self._of_one(self.single.select(split.train), weights, offsets, values)
        return self._of_several(split.train, offsets, values)

    def _of_one(
        self,
        train: Targets,
        weights: Tensor | None,
        offsets: Tensor | None,
        values: Mapping[str, Any],
    ) -> dict[str, Any]:
        names = list(train.names)
        if train.kind == "multi_label":
            return {"classes": names, **select_values(values, "metrics")}
        if train.kind == "regression":
            return number_task_arguments(train, offsets, values)
        counts = [float(each) for each in train.counts().values()]
        if weights is not None:
            sums = torch.zeros(len(names), dtype=torch.float64)
            sums.index_add_(0, train.values.long(), weights.double())
            counts = sums.tolist()
        loss = loss_arguments(values, counts)
        costs = self.options.costs
        return {
            "classes": names,
            **select_values(values, "metrics"),
            **loss,
            **({} if costs is None else {"costs": dict(costs)}),
        }

    def _of_several(
        self, train: Rows, offsets: Tensor | None, values: Mapping[str, Any]
    ) -> dict[str, Any]:
        own = self.own_tasks()
        if offsets is not None and not any(task in LOG_LINK_TASKS for task in own.values()):
            raise PlanError(
                "The data have an exposure, but the task of no target uses it. Choose one: "
                'TabularOptions(target_tasks={"count": "poisson"}); or drop the column.'
            )
        tasks: dict[str, Task] = {}
        for name, task in own.items():
            known, missing = _known(self.by_name[name].select(train))
            if not len(known.values):
                raise InputError(f"The target {name!r} is missing in all train rows. Leave it out.")
            part = {"task": task, "targets": (values.get("targets") or {}).get(name)}
            if task in _METRICS:
                part["metrics"] = _METRICS[task]
            logs = offsets if task in LOG_LINK_TASKS else None
            if logs is not None:
                logs = logs[~missing]
            arguments = replace(self, options=TabularOptions())._of_one(known, None, logs, part)
            if bool(missing.any()) or self._lacks_rows(name):
                ignoring = (
                    {"ignore_index": -100} if task == "classification" else {"ignore_nan": True}
                )
                arguments |= ignoring
            tasks[name] = _TASKS[task](**arguments)
        return {"tasks": tasks, "factors": dict(values.get("loss_factors") or {})}

    def _lacks_rows(self, name: str) -> bool:
        return bool(_known(self.by_name[name])[1].any())


def _known(targets: Targets) -> tuple[Targets, Tensor]:
    """Return the targets that are not missing, and which rows lack them, bool ``(n,)``."""
    missing = torch.from_numpy(targets.missing())
    if not bool(missing.any()):
        return targets, missing
    return replace(targets, values=targets.values[~missing]), missing


def _facts_of(targets: Targets, train: Rows, weights: Tensor | None) -> dict[str, Any]:
    """Return what describes the train targets of one task."""
    known, missing = _known(targets.select(train))
    values = known.of()
    names: Sequence[str] | None = targets.names if targets.kind == "classification" else None
    facts = describe_target(values, names, weights)
    if targets.kind == "regression":
        facts["target_whole"] = bool((values == values.round()).all())
        facts["target_zeros"] = float((values == 0).double().mean())
    if targets.kind == "multi_label":
        facts["class_names"] = list(targets.names)
        facts["class_counts"] = list(known.counts().values())
    if n := int(missing.sum()):
        facts["target_missing"] = n
    return facts
