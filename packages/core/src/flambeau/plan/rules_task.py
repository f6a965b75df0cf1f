"""Core rules on what is to be learned: split, task, loss, metrics.

They read these facts, which every ``Data.facts()`` measures on its train rows:

- ``n_train``, ``n_valid``, ``n_test``: samples in each part.
- ``split``: in words, how the parts were made.
- ``target_dtype``: "float32", "int64", "bool", "str" …; ``target_shape``: of one sample's target,
  ``[]`` for a plain number or label.
- ``target_distinct``: distinct values; ``target_min``, ``target_max``: numbers, None for text.
- ``class_counts``: samples of each class by name, where the targets may be classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule

_TASKS = ("classification", "multi_label", "regression")

# A whole number is a class label rather than an amount while classes repeat this often.
_ROWS_PER_CLASS = 10
# Floats with fewer distinct values than this, each repeated, may be labels in disguise.
_FEW = 20

_LOSSES = {
    "classification": ("cross_entropy", "One of several classes: the log-likelihood of the label."),
    "multi_label": ("binary_cross_entropy", "Labels that may hold together: one yes/no each."),
    "regression": ("mse", "Numbers: squared error, whose best answer is the mean."),
}

# Above this share the largest class alone makes accuracy look good.
_IMBALANCED = 0.6


def _split(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    counts = {part: facts.get(f"n_{part}", 0) for part in ("train", "valid", "test")}
    sizes = ", ".join(f"{count:,} {part}" for part, count in counts.items())
    return Choice(
        "split",
        facts["split"],
        f"The data were split when they were built: {sizes}.",
        evidence=counts,
        override="Give valid=, test= or split= where the data are built.",
        source="default",
    )


def _task(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    dtype, shape = str(facts["target_dtype"]), list(facts["target_shape"])
    n, distinct = facts["n_train"], facts.get("target_distinct")
    if len(shape) == 1 and shape[0] > 1 and _only_0_and_1(facts):
        value, confidence = "multi_label", 0.8
        reason = f"Each of {n:,} rows has {shape[0]} targets, and all are 0 or 1."
    elif dtype.startswith(("float", "bfloat")):
        value, confidence = "regression", 0.95
        reason = f"The targets are {dtype}, {_amount(distinct, 'distinct value')} in {n:,} rows."
        if distinct is not None and distinct <= _FEW and distinct * _ROWS_PER_CLASS <= n:
            confidence = 0.45
            reason += " So few values may be class labels: then convert them to int64."
    elif shape or not _is_integer(dtype):
        labels = not shape
        value, confidence = ("classification", 0.95) if labels else ("regression", 0.4)
        what = "labels" if labels else f"of shape {tuple(shape)}"
        reason = f"The targets are {dtype} {what}, {_amount(distinct, 'distinct value')}"
        reason += f" in {n:,} rows."
    else:
        value, confidence, reason = _of_integers(facts, n, distinct)
    return Choice(
        "task",
        value,
        reason,
        evidence={
            "target_dtype": dtype,
            "target_shape": shape,
            "target_distinct": distinct,
            "n_train": n,
        },
        alternatives=tuple(name for name in _TASKS if name != value),
        confidence=confidence,
    )


def _of_integers(facts: Mapping[str, Any], n: int, distinct: int | None) -> tuple[str, float, str]:
    reason = f"{_amount(distinct, 'distinct integer')} in {n:,} rows"
    low = facts.get("target_min")
    if low is not None and low < 0 and low != -1:
        return "regression", 0.7, f"{reason}, the lowest {low}: amounts rather than labels."
    if distinct is None or distinct * _ROWS_PER_CLASS <= n:
        return "classification", 0.95, f"{reason}."
    if distinct * 2 <= n:
        return "classification", 0.45, f"{reason}: few rows for each, so it might be an amount."
    return "regression", 0.45, f"{reason}: hardly any value repeats, so it is hardly a label."


def _loss(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    task = values["task"]
    if task not in _LOSSES:
        return Choice(
            "loss",
            "of the task",
            f"The task {task!r} brings its own loss.",
            override="Pass another task: Learner(data, task=...).",
            source="default",
        )
    value, reason = _LOSSES[task]
    return Choice(
        "loss",
        value,
        reason,
        evidence={"task": task},
        override="Choose another task, or pass one with its own loss: Learner(data, task=...).",
    )


def _metrics(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    task = values["task"]
    evidence: dict[str, Any] = {"task": task}
    if task == "classification":
        share = _largest_share(facts.get("class_counts"))
        value, reason = ["accuracy"], "The share of right answers."
        if share is not None:
            evidence["largest_share"] = round(share, 4)
            reason = f"The largest class has {share:.0%} of the rows, so accuracy says enough."
            if share > _IMBALANCED:
                value = ["accuracy", "balanced_accuracy", "macro_f1"]
                reason = (
                    f"The largest class has {share:.0%} of the rows: accuracy alone would look "
                    "good without learning anything."
                )
    elif task == "multi_label":
        value, reason = ["micro_f1", "macro_f1"], "F1 over all labels, and the mean of each one's."
    elif task == "regression":
        value, reason = (
            ["mae", "rmse", "r2"],
            "Errors in the target's unit, and the share explained.",
        )
    else:
        value, reason = [], f"The task {task!r} brings its own metrics."
    return Choice(
        "metrics",
        value,
        reason,
        evidence=evidence,
        override="Pass a task with the metrics you want: Learner(data, task=...).",
    )


def _only_0_and_1(facts: Mapping[str, Any]) -> bool:
    distinct = facts.get("target_distinct")
    return (
        distinct is not None
        and distinct <= 2
        and facts.get("target_min") in (0, 1)
        and facts.get("target_max") in (0, 1)
    )


def _is_integer(dtype: str) -> bool:
    return dtype.startswith(("int", "uint"))


def _amount(count: int | None, noun: str) -> str:
    if count is None:
        return f"an unknown number of {noun}s"
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _largest_share(counts: Mapping[str, int] | None) -> float | None:
    if not counts or not sum(counts.values()):
        return None
    return max(counts.values()) / sum(counts.values())


TASK_RULES = (
    Rule("split", (), _split),
    Rule("task", (), _task),
    Rule("loss", ("task",), _loss),
    Rule("metrics", ("task",), _metrics),
)
