"""Checks of classes, targets and metrics."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace

import torch
from torch import Tensor

from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.reading import DOUBTFUL_BELOW
from flambeau.doctor.finding import Finding
from flambeau.doctor.training_setup import TrainingSetup
from flambeau.doctor.typed_torch import int_list, true_positions
from flambeau.task.task import Task
from flambeau.wording import format_number, name_some

# Validation rows of a class expected from its share in train, above which having none is no
# coincidence: its probability is e⁻¹², 1 in 160,000.
_EXPECTED_IN_VALID = 12
_MAJORITY = 0.9
_FEWEST_ROWS = 100
_SUM_TOLERANCE = 1e-2  # of half precision probabilities over some thousand classes

_LABEL_METRIC = re.compile(r"Accuracy|F1|FBeta|Precision|Recall|AUROC|ConfusionMatrix|ExactMatch")
_REGRESSION_METRIC = re.compile(r"^(Mean|Root|Explained|Relative).*(Error|Variance)$|^R2")
_MULTI_LABEL_METRIC = re.compile(r"Multi_?label|ExactMatch", re.I)
_LABEL_KINDS = ("classification", "multi_label")
_FITTING = "Use a metric that fits the task."
_ONE_LABEL = ("Accuracy", "BalancedAccuracy", "MacroF1", "TopKAccuracy")


def class_missing(setup: TrainingSetup) -> Finding | None:
    """Find classes without a train row: the model has an output for them but cannot learn it."""
    by_name = _train_counts(setup)
    missing = [name for name, count in by_name.items() if not count]
    if not missing:
        return None
    one = len(missing) == 1
    fix = "or remove the class from the class names."
    if setup.data.like is not None:
        fix = "because without them training lowers its probability."
    return Finding(
        "class-not-in-train",
        f"No train row has the class{'' if one else 'es'} {name_some(missing)}.",
        {"classes": len(by_name), "missing": len(missing), "train rows": setup.facts["n_train"]},
        "Add samples of this class to train (a stratified split keeps the share of each class), "
        f"{fix}",
    )


def class_not_in_valid(setup: TrainingSetup) -> Finding | None:
    """Find common classes without a validation row: the split was not random."""
    by_name, valid = _train_counts(setup), setup.memory_dataset("valid")
    labels = None if valid is None else _labels(valid)
    if labels is None or not by_name or setup.task.kind != "classification":
        return None
    if setup.task.ignore_index is not None:
        labels = labels[labels != setup.task.ignore_index]
    counts = int_list(torch.bincount(labels.clamp(0, len(by_name) - 1), minlength=len(by_name)))
    share = len(labels) / max(1, sum(by_name.values()))
    missing = [
        name
        for (name, in_train), in_valid in zip(by_name.items(), counts, strict=True)
        if not in_valid and in_train * share >= _EXPECTED_IN_VALID
    ]
    if not missing:
        return None
    return Finding(
        "class-not-in-valid",
        f"No validation row has the class{'' if len(missing) == 1 else 'es'} {name_some(missing)}, "
        f"although a random split would contain {by_name[missing[0]] * share:.0f} rows of "
        f"{missing[0]}. The scores do not include the class.",
        {"missing": len(missing), "train rows of the first": by_name[missing[0]]},
        "Use a random split (valid=0.2 keeps the share of each class), or shuffle the rows before "
        "splitting them.",
    )


def class_imbalance(setup: TrainingSetup) -> Finding | None:
    """Find one class with nearly all rows while accuracy is the only metric."""
    by_name, task = _train_counts(setup), setup.task
    n = sum(by_name.values())
    if task.kind != "classification" or n < _FEWEST_ROWS:
        return None
    scores = {name: type(metric).__name__ for name, metric in task.metrics().items()}
    if not scores or any(kind not in ("Accuracy", "TopKAccuracy") for kind in scores.values()):
        return None
    name, count = max(by_name.items(), key=lambda item: item[1])
    if count < _MAJORITY * n:
        return None
    return Finding(
        "class-imbalance",
        f"{count / n:.1%} of the train rows have the class {name!r}. A model that always predicts "
        "it reaches this accuracy, and accuracy is the only metric.",
        {"share": count / n, "rows of other classes": n - count, "metrics": list(scores)},
        "Add metrics that weight all classes equally: "
        'choices={"metrics": ["balanced_accuracy", "macro_f1"]}.',
    )


def doubtful_readings(setup: TrainingSetup) -> list[Finding]:
    """Find labels, folders and columns whose interpretation is doubtful."""
    return [
        Finding("doubtful-reading", reading["what"], reading["evidence"], reading["override"])
        for reading in setup.facts.get("readings", ())
        if reading["confidence"] < DOUBTFUL_BELOW
        and not (setup.task_is_given and reading["key"] == "task")
    ]


def constant_target(setup: TrainingSetup) -> Finding | None:
    """Find target columns with the same value in all train rows: there is nothing to learn."""
    train = setup.memory_dataset("train")
    if train is None or setup.task.kind not in ("regression", "multi_label"):
        return None
    if len(train.targets) != 1 or len(train) < 2:
        return None
    target = next(iter(train.targets.values()))
    flat = target.reshape(len(target), -1)
    constant = true_positions((flat == flat[:1]).all(0))
    if not constant:
        return None
    names = setup.task.output_names or tuple(map(str, range(flat.shape[1])))
    every = len(constant) == flat.shape[1]
    return Finding(
        "constant-target",
        f"The target {name_some(names[column] for column in constant)} is "
        f"{format_number(float(flat[0, constant[0]]))} in all {len(flat):,} train rows.",
        {"columns": len(constant), "of": flat.shape[1]},
        "Check how the targets are read. Remove a target that never varies, or add rows in which "
        "it does.",
        severity="error" if every else "warning",
    )


def metric_for_task(setup: TrainingSetup) -> list[Finding]:
    """Find metrics that do not fit the kind of prediction of the task."""
    task = setup.task
    found: list[Finding] = []
    for name, metric in task.metrics().items():
        kind = type(metric).__name__
        why = ""
        if task.kind == "regression" and _LABEL_METRIC.search(kind):
            why = "compares labels, but the task predicts real numbers"
        elif task.kind in _LABEL_KINDS and _REGRESSION_METRIC.search(kind):
            why = "compares real numbers, but the task predicts labels"
        elif task.kind == "multi_label" and kind in _ONE_LABEL:
            why = "expects one label per sample, but the task has several"
        elif task.kind == "classification" and _MULTI_LABEL_METRIC.match(kind):
            why = "expects several labels per sample, but the task has one"
        if why:
            known = ", ".join(task.known_metrics())
            fix = f"Use a metric of {type(task).__name__}: {known}." if known else _FITTING
            found.append(
                Finding(
                    "metric-for-task",
                    f"The metric {name!r} ({kind}) {why}, so its value has no meaning.",
                    {"metric": kind, "task": type(task).__name__, "loss": task.loss_name},
                    fix,
                )
            )
    return found


def label_range(setup: TrainingSetup) -> Finding | None:
    """Find labels that the loss cannot use, such as class indices counted from 1."""
    task, targets = setup.task, setup.batch.targets
    if len(targets) != 1 or task.kind not in _LABEL_KINDS:
        return None
    target = next(iter(targets.values()))
    if task.kind == "multi_label":
        return _out_of_range(target, 0.0, 1.0, "labels must be 0, 1 or a probability")
    if not target.is_floating_point():
        if task.ignore_index is not None:
            target = target[target != task.ignore_index]
        if task.n_outputs is None:
            return None
        last = task.n_outputs - 1
        return _out_of_range(
            target, 0, last, f"the {last + 1} classes have the indices 0 to {last}"
        )
    if target.ndim < 2:
        return None
    sums = target.float().sum(1)
    if bool((target >= 0).all()) and bool(((sums - 1).abs() < _SUM_TOLERANCE).all()):
        return None
    return Finding(
        "label-range",
        "Targets with one value per class must be probabilities, but their sums per sample range "
        f"from {format_number(float(sums.min()))} to {format_number(float(sums.max()))}.",
        {"smallest": float(target.min()), "sums": [float(sums.min()), float(sums.max())]},
        "Scale the probabilities of each sample to a sum of 1, or use MultiLabel if a sample can "
        "have several labels.",
        severity="error",
    )


def labels_fit(setup: TrainingSetup) -> bool:
    """Return whether the loss can use the labels of the first batch."""
    return setup.cached(label_range) is None


def no_target(setup: TrainingSetup) -> Finding | None:
    """Find samples of the first batch that have no target, such as labels that are all ignored.

    A sample whose ``sample_weight`` is 0 is not reported, because the user has excluded it.
    """
    outputs, batch, task = setup.outputs, setup.batch, copy.copy(setup.task)
    n = len(batch)
    columns = [*batch.targets.values(), *batch.masks.values()]
    if not isinstance(outputs, Tensor) or not columns:
        return None
    if any(value.ndim == 0 or len(value) != n for value in (outputs, *columns)):
        return None
    batch = replace(batch, sample_weight=None)
    with torch.no_grad():
        weights = [
            float(task.loss(outputs[row : row + 1], batch.rows(slice(row, row + 1)))[1])
            for row in range(n)
        ]
    empty = [row for row, weight in enumerate(weights) if weight == 0]
    if not empty:
        return None
    numbers = empty if batch.indices is None else [int(batch.indices[row]) for row in empty]
    have = "sample has" if len(empty) == 1 else "samples have"
    return Finding(
        "no-target",
        f"{len(empty)} of the first {n} {have} no target, so the model learns nothing from "
        f"{'it' if len(empty) == 1 else 'them'}: {name_some(numbers)}.",
        {"samples": n, "without a target": len(empty)},
        "Remove these samples, or check why all of their targets are ignored (ignore_index). A "
        "step in which no sample has a target changes no weights, and an epoch without any target "
        "ends the run.",
        severity="error" if len(empty) == n else "warning",
    )


def _out_of_range(target: Tensor, low: float, high: float, expected: str) -> Finding | None:
    if not target.numel():
        return None
    least, most = float(target.min()), float(target.max())
    if low <= least and most <= high:
        return None
    counted_from_one = least == 1 and most == high + 1
    hint = " They seem to be counted from 1: subtract 1." if counted_from_one else ""
    if (least, most, high) == (-1, 1, 1):
        hint = " (labels + 1) / 2 converts -1 and 1 to 0 and 1."
    return Finding(
        "label-range",
        f"The labels of the first batch range from {least:g} to {most:g}, but {expected}.",
        {"smallest": least, "largest": most},
        f"Correct the labels in the data set.{hint}",
        severity="error",
    )


def _train_counts(setup: TrainingSetup) -> dict[str, int]:
    """Return the train rows by class name; empty if they are not known."""
    names, counts = setup.facts.get("class_names"), setup.facts.get("class_counts")
    if not names or not counts:
        return {}
    return dict(zip(names, counts, strict=True))


def _labels(dataset: MemoryDataset) -> Tensor | None:
    """Return class indices ``(n,)``, or None if the targets are not class indices."""
    if len(dataset.targets) != 1:
        return None
    target = next(iter(dataset.targets.values()))
    if target.ndim != 1 or target.is_floating_point() or not len(target):
        return None
    return target.long()


def uniform_prediction_loss(task: Task) -> float | None:
    """Return the loss if every class has the same probability; None for tasks without classes."""
    if task.kind == "classification" and task.n_outputs:
        return math.log(task.n_outputs)
    return math.log(2) if task.kind == "multi_label" else None
