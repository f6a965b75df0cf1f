"""Compute the scores of baselines on the part of the data that an interpretation covers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flambeau.data.data import Data
from flambeau.data.facts import Facts
from flambeau.data.loader import Dataset
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.split import HELD_OUT, PARTS
from flambeau.report.baselines import baseline_scores
from flambeau.report.predictions import Predictions
from flambeau.task.task import Task

_MOST_VALUES = 50_000_000  # in the scored samples, which a linear model needs as floats


@dataclass(frozen=True)
class _OnlyTargets:
    """A data set without inputs, which is enough for a constant prediction."""

    targets: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    sample_weight: Tensor | None = None


def part_baselines(
    task: Task,
    predictions: Predictions,
    part: str,
    data: Data | None,
    dataset: Callable[[str], Dataset] | None,
) -> dict[str, dict[str, float]]:
    """Return the scores of baselines by name: a constant prediction and a linear model.

    The linear model is fitted only if the samples are in memory.

    Args:
        task: Defines loss and metrics.
        predictions: The model's predictions for the part.
        part: Name of the part. The result is empty for "train", on which the baselines are fitted.
        data: The data, whose facts describe the train targets if the samples are in files.
        dataset: Returns the data set of a part; None if the train samples are not available: then
            the constant prediction is the one that is best for the scored samples.
    """
    if predictions.targets is None or part == "train":
        return {}
    if dataset is None:
        return {} if data is None else _own_constant(task, predictions)
    if part not in HELD_OUT:
        return {}
    train, scored = dataset("train"), dataset(part)
    if isinstance(train, MemoryDataset) and isinstance(scored, MemoryDataset):
        if len(train.targets) != 1:
            return {}
        if _shapes(train) == _shapes(scored) and _count(scored) <= _MOST_VALUES:
            return baseline_scores(train, scored, task)
        # Train images with a margin for cropping, or too many values: only a constant prediction.
        only_train, only_scored = (
            _OnlyTargets(each.targets, sample_weight=each.sample_weight) for each in (train, scored)
        )
        return baseline_scores(only_train, only_scored, task)
    train_targets = None if data is None else _train_targets(task, data.facts())
    if train_targets is None:
        return {}
    scored = _scored(task, predictions)
    train_samples = _OnlyTargets({"target": train_targets})
    return {} if scored is None else baseline_scores(train_samples, scored, task)


def group_numbers(data: Data, ids: Tensor) -> Tensor | None:
    """Return the numbers of the groups of samples ``(n,)``; None if a sample has no group.

    Args:
        data: The data.
        ids: Sample indices as in ``data.split``.
    """
    group_of: dict[int, Any] = {}
    for part in PARTS:
        groups = data.groups(part)
        if groups is not None:
            rows: list[int] = data.split.part(part).tolist()
            group_of |= dict(zip(rows, groups, strict=True))
    chosen = [int(each) for each in ids]
    if not group_of or not all(each in group_of for each in chosen):
        return None
    number_of = {group: number for number, group in enumerate(dict.fromkeys(group_of.values()))}
    return torch.tensor([number_of[group_of[each]] for each in chosen])


def _own_constant(task: Task, predictions: Predictions) -> dict[str, dict[str, float]]:
    """Return the scores of the constant prediction that is best for the scored samples."""
    known = task.kind in ("classification", "multi_label", "regression")
    samples = _scored(task, predictions) if known else None
    found = {} if samples is None else baseline_scores(samples, samples, task)
    return {f"{name} of these samples": scores for name, scores in found.items()}


def _scored(task: Task, predictions: Predictions) -> _OnlyTargets | None:
    """Return the targets of the scored samples; None if there are none."""
    targets = predictions.targets
    if targets is None:
        return None
    kept = targets >= 0 if task.kind == "classification" else torch.ones(len(targets)).bool()
    weights = None if predictions.weights is None else predictions.weights[kept]
    if not bool(kept.any()):
        return None
    return _OnlyTargets({"target": targets[kept]}, sample_weight=weights)


def _count(samples: MemoryDataset) -> int:
    return sum(value.numel() for value in samples.inputs.values())


def _shapes(samples: MemoryDataset) -> dict[str, torch.Size]:
    return {name: value.shape[1:] for name, value in samples.inputs.items()}


def _train_targets(task: Task, facts: Facts) -> Tensor | None:
    """Return targets whose best constant prediction equals that of the train targets."""
    if task.kind == "classification":
        counts = facts.get("class_counts")
        if counts is None or len(counts) != task.n_outputs:
            return None
        return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    mean = facts.get("target_mean")
    if task.kind == "regression" and mean is not None and len(mean) == task.n_outputs:
        return torch.tensor([mean], dtype=torch.float64)
    return None
