"""Simple models on the samples that a report is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flambeau.data.dataset import Data
from flambeau.data.gather import MemoryDataset
from flambeau.data.loader import Dataset
from flambeau.report.answers import Answers
from flambeau.report.baselines import baseline_scores
from flambeau.task.classification import Classification
from flambeau.task.regression import Regression
from flambeau.task.task import Task


@dataclass(frozen=True)
class _TargetsAlone:
    """Samples of which only the targets are at hand: enough for a constant answer."""

    targets: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]


def simple_models(
    task: Task,
    answers: Answers,
    part: str,
    data: Data | None,
    dataset: Callable[[str], Dataset] | None,
) -> dict[str, dict[str, float]]:
    """Scores of a constant answer and, for samples in memory, of a linear model, by name.

    Args:
        task: Says what is scored.
        answers: Of the part that is scored.
        part: Its name; on "train" there is nothing to compare, as it is what they are fitted on.
        data: Its facts tell what the train targets are where the samples are in files.
        dataset: The samples of a part.
    """
    if answers.targets is None or part == "train":
        return {}
    if dataset is not None and part in ("valid", "test"):
        train, test = dataset("train"), dataset(part)
        if isinstance(train, MemoryDataset) and isinstance(test, MemoryDataset):
            return baseline_scores(train, test, task) if len(train.targets) == 1 else {}
    targets = None if data is None else _train_targets(task, data.facts())
    if targets is None:
        return {}
    truth = answers.targets
    kept = truth >= 0 if isinstance(task, Classification) else torch.ones(len(truth)).bool()
    if not bool(kept.any()):
        return {}
    return baseline_scores(_alone(targets), _alone(truth[kept]), task)


def _alone(targets: Tensor) -> _TargetsAlone:
    return _TargetsAlone({"target": targets}, {})


def _train_targets(task: Task, facts: Mapping[str, Any]) -> Tensor | None:
    """Targets that give the same constant answer as those of train, from the facts."""
    if isinstance(task, Classification):
        counts: Sequence[int] | None = facts.get("class_counts")
        if counts is None or len(counts) != task.n_outputs:
            return None
        return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    mean: Sequence[float] | None = facts.get("target_mean")
    if isinstance(task, Regression) and mean is not None and len(mean) == task.n_outputs:
        return torch.tensor([mean], dtype=torch.float64)
    return None
