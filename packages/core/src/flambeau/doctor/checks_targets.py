"""Checks of classes, targets and metrics: what is measured already, or cheap to count."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from flambeau.data.memory_loader import MemoryDataset
from flambeau.doctor.finding import Finding
from flambeau.doctor.readings import places, whole_numbers
from flambeau.doctor.subject import Subject
from flambeau.doctor.words import listed, number
from flambeau.task.classification import Classification
from flambeau.task.multi_label import MultiLabel
from flambeau.task.regression import Regression

# Rows of a class that valid is to have by its share in train, from which on none is no chance:
# e⁻¹² is 1 in 160,000.
_EXPECTED_IN_VALID = 12
_MAJORITY = 0.9
_ENOUGH_TO_JUDGE = 100
_SUM_TOLERANCE = 1e-2  # of half precision probabilities over some thousand classes

_OF_LABELS = re.compile(r"Accuracy|F1|FBeta|Precision|Recall|AUROC|ConfusionMatrix|ExactMatch")
_OF_AMOUNTS = re.compile(r"^(Mean|Root|Explained|Relative).*(Error|Variance)$|^R2")
_ONE_LABEL = ("Accuracy", "BalancedAccuracy", "MacroF1", "TopKAccuracy")


def class_missing(subject: Subject) -> Finding | None:
    """Classes that no train row has: the model can answer with them but never learns one."""
    by_name = _train_counts(subject)
    missing = [name for name, count in by_name.items() if not count]
    if not missing:
        return None
    one = len(missing) == 1
    return Finding(
        "class-not-in-train",
        f"No train row has the class{'' if one else 'es'} {listed(missing)}.",
        {"classes": len(by_name), "missing": len(missing), "train rows": subject.facts["n_train"]},
        "Add samples of it to train (a stratified split keeps each class's share), or take the "
        "class out of the class names.",
    )


def class_not_in_valid(subject: Subject) -> Finding | None:
    """Common classes that valid lacks: the split was not drawn, and the scores say nothing."""
    by_name, columns = _train_counts(subject), subject.columns("valid")
    labels = None if columns is None else _labels(columns)
    if labels is None or not by_name or not isinstance(subject.task, Classification):
        return None
    counts = whole_numbers(
        torch.bincount(labels.clamp(0, len(by_name) - 1), minlength=len(by_name))
    )
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
        f"No valid row has the class{'' if len(missing) == 1 else 'es'} {listed(missing)}, of "
        f"which a random split would give it {by_name[missing[0]] * share:.0f} rows: the scores "
        "say nothing about it.",
        {"missing": len(missing), "train rows of the first": by_name[missing[0]]},
        "Let valid be drawn (valid=0.2 keeps each class's share), or shuffle the rows before they "
        "are cut into parts.",
    )


def class_imbalance(subject: Subject) -> Finding | None:
    """One class has nearly all rows, and accuracy is the only score."""
    by_name, task = _train_counts(subject), subject.task
    n = sum(by_name.values())
    if not isinstance(task, Classification) or n < _ENOUGH_TO_JUDGE:
        return None
    scores = {name: type(metric).__name__ for name, metric in task.metrics().items()}
    if not scores or any(kind not in ("Accuracy", "TopKAccuracy") for kind in scores.values()):
        return None
    name, count = max(by_name.items(), key=lambda item: item[1])
    if count < _MAJORITY * n:
        return None
    return Finding(
        "class-imbalance",
        f"{name!r} is the class of {count / n:.1%} of the train rows: a model that always answers "
        "it has that accuracy, and nothing else is measured.",
        {"share": count / n, "rows of the others": n - count, "metrics": list(scores)},
        'Measure the other classes too: choices={"metrics": ["balanced_accuracy", "macro_f1"]}.',
    )


def constant_target(subject: Subject) -> Finding | None:
    """Target columns with one value for all train rows: there is nothing to learn."""
    columns = subject.columns("train")
    if columns is None or not isinstance(subject.task, Regression | MultiLabel):
        return None
    if len(columns.targets) != 1 or len(columns) < 2:
        return None
    target = next(iter(columns.targets.values()))
    flat = target.reshape(len(target), -1)
    constant = places((flat == flat[:1]).all(0))
    if not constant:
        return None
    names = subject.task.names if isinstance(subject.task, Regression) else subject.task.classes
    every = len(constant) == flat.shape[1]
    return Finding(
        "constant-target",
        f"The target {listed(names[column] for column in constant)} is "
        f"{number(float(flat[0, constant[0]]))} for all {len(flat):,} train rows.",
        {"columns": len(constant), "of": flat.shape[1]},
        "Look at how the targets are read; leave out what never changes, or add rows where it "
        "does.",
        severity="error" if every else "warning",
    )


def metric_for_task(subject: Subject) -> list[Finding]:
    """Metrics that measure another kind of answer than the loss trains."""
    task = subject.task
    found: list[Finding] = []
    for name, metric in task.metrics().items():
        kind = type(metric).__name__
        why = ""
        if isinstance(task, Regression) and _OF_LABELS.search(kind):
            why = "compares labels, but the task predicts amounts"
        elif isinstance(task, Classification | MultiLabel) and _OF_AMOUNTS.search(kind):
            why = "measures amounts, but the task predicts labels"
        elif isinstance(task, MultiLabel) and kind in _ONE_LABEL:
            why = "takes one label a sample, but the task has several"
        elif isinstance(task, Classification) and re.match("Multi_?label|ExactMatch", kind, re.I):
            why = "takes several labels a sample, but the task has one"
        if why:
            known = ", ".join(task.known_metrics())  # type: ignore[attr-defined]
            found.append(
                Finding(
                    "metric-for-task",
                    f"The metric {name!r} ({kind}) {why}: its figure means nothing.",
                    {"metric": kind, "task": type(task).__name__, "loss": task.loss_name},
                    f"{type(task).__name__} knows {known}.",
                )
            )
    return found


def label_range(subject: Subject) -> Finding | None:
    """Labels that the loss cannot read: other numbers than those of classes, -1 for "no"."""
    task, targets = subject.task, subject.batch.targets
    if len(targets) != 1 or not isinstance(task, Classification | MultiLabel):
        return None
    target = next(iter(targets.values()))
    if isinstance(task, MultiLabel):
        return _beyond(target, 0.0, 1.0, "labels are 0 or 1, or a share between them")
    if not target.is_floating_point():
        if task.ignore_index is not None:
            target = target[target != task.ignore_index]
        last = task.n_outputs - 1
        return _beyond(target, 0, last, f"the {last + 1} classes are counted from 0 to {last}")
    if target.ndim < 2:
        return None
    sums = target.float().sum(1)
    if bool((target >= 0).all()) and bool(((sums - 1).abs() < _SUM_TOLERANCE).all()):
        return None
    return Finding(
        "label-range",
        "Targets with one number a class are probabilities, but they add up to "
        f"{number(float(sums.min()))} to {number(float(sums.max()))} a sample.",
        {"smallest": float(target.min()), "sums": [float(sums.min()), float(sums.max())]},
        "Let each sample's probabilities add up to 1, or choose MultiLabel where several labels "
        "may apply.",
        severity="error",
    )


def labels_fit(subject: Subject) -> bool:
    """Whether the loss can read the labels of the first batch."""
    return subject.once(label_range) is None


def _beyond(target: Tensor, low: float, high: float, meant: str) -> Finding | None:
    if not target.numel():
        return None
    least, most = float(target.min()), float(target.max())
    if low <= least and most <= high:
        return None
    counted_from_one = least == 1 and most == high + 1
    hint = " They seem to be counted from 1: subtract it." if counted_from_one else ""
    if (least, most, high) == (-1, 1, 1):
        hint = " -1 and 1 become 0 and 1 with (labels + 1) / 2."
    return Finding(
        "label-range",
        f"The labels of the first batch go from {least:g} to {most:g}, but {meant}.",
        {"smallest": least, "largest": most},
        f"Mend the labels in the data set.{hint}",
        severity="error",
    )


def _train_counts(subject: Subject) -> dict[str, int]:
    """Train rows by class name; empty where they are not known."""
    names, counts = subject.facts.get("class_names"), subject.facts.get("class_counts")
    if not names or not counts:
        return {}
    by_name: Mapping[str, int] = (
        cast("Mapping[str, int]", counts)
        if isinstance(counts, Mapping)
        else dict(zip(names, counts, strict=True))
    )
    return {str(name): int(by_name.get(name, 0)) for name in names}


def _labels(columns: MemoryDataset) -> Tensor | None:
    """Class numbers ``(n,)``, or None where the targets are something else."""
    if len(columns.targets) != 1:
        return None
    target = next(iter(columns.targets.values()))
    if target.ndim != 1 or target.is_floating_point() or not len(target):
        return None
    return target.long()


def loss_of_guessing(task: object) -> float | None:
    """Loss of a model that holds every answer for equally likely; None where that is no number."""
    if isinstance(task, Classification):
        return math.log(task.n_outputs)
    return math.log(2) if isinstance(task, MultiLabel) else None
