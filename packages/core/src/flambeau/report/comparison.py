"""Simple models on the samples that a report is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flambeau.data.data import Data
from flambeau.data.loader import Dataset
from flambeau.data.memory_loader import MemoryDataset
from flambeau.report.answers import Answers
from flambeau.report.baselines import baseline_scores
from flambeau.task.classification import Classification
from flambeau.task.regression import Regression
from flambeau.task.task import Task

_MOST_NUMBERS = 50_000_000  # of the scored samples, which a linear model needs as floats


@dataclass(frozen=True)
class _Targets:
    """Samples of which only the targets are looked at: enough for a constant answer."""

    targets: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


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
        dataset: The samples of a part; None where the model was trained on others.
    """
    if answers.targets is None or dataset is None or part not in ("valid", "test"):
        return {}
    train, test = dataset("train"), dataset(part)
    if isinstance(train, MemoryDataset) and isinstance(test, MemoryDataset):
        if len(train.targets) != 1:
            return {}
        if _shapes(train) == _shapes(test) and _count(test) <= _MOST_NUMBERS:
            return baseline_scores(train, test, task)
        # Train samples with a margin to crop from, or too many for memory: a constant serves.
        return baseline_scores(_Targets(train.targets), _Targets(test.targets), task)
    targets = None if data is None else _train_targets(task, data.facts())
    if targets is None:
        return {}
    truth = answers.targets
    kept = truth >= 0 if isinstance(task, Classification) else torch.ones(len(truth)).bool()
    if not bool(kept.any()):
        return {}
    return baseline_scores(_Targets({"target": targets}), _Targets({"target": truth[kept]}), task)


def _count(samples: MemoryDataset) -> int:
    return sum(value.numel() for value in samples.inputs.values())


def _shapes(samples: MemoryDataset) -> dict[str, torch.Size]:
    return {name: value.shape[1:] for name, value in samples.inputs.items()}


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
