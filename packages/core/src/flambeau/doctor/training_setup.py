"""``TrainingSetup``: what a check may read; each value is computed on first use."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.facts import Facts
from flambeau.data.loader import Loader, StepCounts, has_length
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.user_dataset import UserLoaderDataset
from flambeau.doctor.recorded_pass import (
    PassRecord,
    max_gradients,
    preserved_with_seed,
    record_forward_pass,
)
from flambeau.errors import InputError
from flambeau.global_rng import TemporarySeed
from flambeau.task.task import StepContext, Task

MAX_SAMPLES = 64
"""Samples of the first batch that are used: enough for every check, at a bounded cost."""


class BuiltPlan(Protocol):
    """The objects built from a plan; ``learner.built`` is one.

    An object that also has ``dataset(part)`` lets checks read whole parts that are in memory.
    """

    preprocessor: Preprocessor
    task: Task
    model: nn.Module
    device: torch.device

    def loader(self, part: str) -> Loader:
        """Return the batches of "train", "valid", "test" or "calibration"."""
        ...


@dataclass(frozen=True)
class FitSettings:
    """Settings of the next fit that checks may read.

    Attributes:
        optimizers: Builds the optimizers, by name, from the model and the plan's values; None if
            they are not known.
        custom_optimizers: Whether a user-defined function builds the optimizers.
        custom_step: Whether the training step is user-defined.
        epochs: Epochs of all phases; None uses the plan's value.
        steps: Steps of the phases that are measured in steps, in addition to the epochs.
        lr: The highest learning rate; None uses the plan's value.
        lr_is_measured: Whether ``lr_find`` has chosen the learning rate for this model.
        bn: The batch norm policy of each phase.
        trainable: Layer groups that are trained in each phase; None for all groups.
        accumulate: Micro-batches in an optimizer step.
    """

    optimizers: Callable[[nn.Module, Mapping[str, Any]], Mapping[str, Optimizer]] | None = None
    custom_optimizers: bool = False
    custom_step: bool = False
    epochs: int | None = None
    steps: int = 0
    lr: float | None = None
    lr_is_measured: bool = False
    bn: tuple[str, ...] = ("auto",)
    trainable: tuple[tuple[str, ...] | None, ...] = (None,)
    accumulate: int = 1


class TrainingSetup:
    """Everything that a check may read about a planned training run; read-only for checks.

    Reading ``outputs``, ``loss`` or ``forward_pass`` runs the model once, in training mode and
    without augmentation, as the first step would; ``max_gradients`` runs it once more. Weights,
    buffers, modes and random generators are unchanged afterwards. The task is used as a shallow
    copy, so that its own counters do not change.

    Args:
        data: The data and all data choices.
        values: The plan's values by key.
        build: Builds model, task, preprocessor and loaders. It is called once, when a check first
            needs one of them, so checks that read only the data do not build a model.
        steps_done: Optimizer steps that the model has been trained for; 0 before the first fit.
        seed: Seed of the random numbers of the forward pass (dropout).
        fit_settings: Settings of the next fit.
        task_is_given: Whether the user chose the task, so that no other reading of the targets is
            possible.

    Attributes:
        data: The argument ``data``.
        values: The argument ``values``.
        steps_done: The argument ``steps_done``.
        seed: The argument ``seed``.
        fit_settings: The argument ``fit_settings``.
        task_is_given: The argument ``task_is_given``.
        max_samples: Number of samples of the first batch that are used.
    """

    def __init__(
        self,
        data: Data,
        values: Mapping[str, Any],
        build: Callable[[], BuiltPlan],
        *,
        steps_done: int = 0,
        seed: int = 0,
        fit_settings: FitSettings | None = None,
        task_is_given: bool = False,
    ) -> None:
        self.data = data
        self.values = dict(values)
        self.steps_done = steps_done
        self.seed = seed
        self.fit_settings = fit_settings or FitSettings()
        self.task_is_given = task_is_given
        self.max_samples = MAX_SAMPLES
        self._build = build
        self._cache: dict[Any, Any] = {}

    def cached(self, function: Callable[[TrainingSetup], Any]) -> Any:
        """Return ``function(self)``, computed once; for results that several checks need."""
        if function not in self._cache:
            self._cache[function] = function(self)
        return self._cache[function]

    @property
    def facts(self) -> Facts:
        """Statistics of the train rows (number of rows, class counts, …)."""
        return self.data.facts()

    # ------------------------------------------------------------ built from the plan

    @cached_property
    def built(self) -> BuiltPlan:
        """Model, task, preprocessor and loaders."""
        return self._build()

    @property
    def model(self) -> nn.Module:
        """The model, on its device."""
        return self.built.model

    @property
    def task(self) -> Task:
        """Loss, metrics and decoding."""
        return self.built.task

    @cached_property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers of the next fit by name; empty if they are not known."""
        if self.fit_settings.optimizers is None:
            return {}
        with preserved_with_seed(self.model, self.seed):
            return self.fit_settings.optimizers(self.model, self.values)

    def dataset(self, part: str) -> object | None:
        """Return the data set of a part, or None if the part is empty or cannot be read.

        None for a test or calibration part that would have to be read first (``Data.is_loaded``).
        """
        give: Callable[[str], object] | None = getattr(self.built, "dataset", None)
        if give is None or not len(self.data.split.part(part)):
            return None
        if part not in ("train", "valid") and not self.data.is_loaded(part, self.values):
            return None
        return give(part)

    def memory_dataset(self, part: str) -> MemoryDataset | None:
        """Return the data set of a part if its samples are tensors in memory, else None."""
        found = self.dataset(part)
        return found if isinstance(found, MemoryDataset) else None

    @property
    def n_steps(self) -> int:
        """Optimizer steps of the next fit; 0 if not known."""
        settings = self.fit_settings
        epochs = self.values.get("epochs", 0) if settings.epochs is None else settings.epochs
        train = self.built.loader("train")
        if not epochs or not has_length(train):
            return settings.steps
        counts = StepCounts.of_loader(train, settings.accumulate)
        return settings.steps + counts.between(0, int(epochs))

    # ------------------------------------------------------------ the first batch

    @cached_property
    def full_batch(self) -> Batch:
        """The first train batch as the loader returns it."""
        known = self.dataset("train")
        if isinstance(known, UserLoaderDataset) and known.first is not None:
            return known.first  # read when the data were created, so no worker has to start
        with TemporarySeed().at(keyed.key(self.seed, "doctor")):
            batch = next(iter(self.built.loader("train").batches(0)), None)
        if batch is None:
            raise InputError(
                "The train loader returned no batch. Add train rows, or reduce the batch size."
            )
        return batch

    @property
    def batch(self) -> Batch:
        """Up to 64 samples of the first train batch, preprocessed but not augmented.

        Raises:
            InputError: The train loader returned no batch.
        """
        ready: Batch = self.cached(_ready_batch)
        return ready if len(ready) <= self.max_samples else ready.first(self.max_samples)

    # ------------------------------------------------------------ outputs and gradients

    def step_context(self) -> StepContext:
        """Return the context of a forward pass."""
        return StepContext("train", values=dict(self.task.values), seed=self.seed)

    @cached_property
    def forward_pass(self) -> PassRecord:
        """Outputs and layer statistics of one forward pass."""
        return record_forward_pass(
            self.model, copy.copy(self.task), self.batch, self.step_context()
        )

    @property
    def outputs(self) -> Any:
        """The model's outputs for ``batch``: logits, for most tasks."""
        return self.forward_pass.outputs

    @cached_property
    def loss(self) -> float:
        """The mean loss of ``batch``."""
        with torch.no_grad():
            total, weight = copy.copy(self.task).loss(self.outputs, self.batch)
        return float(total) / float(weight)

    @cached_property
    def max_gradients(self) -> Mapping[str, float | None]:
        """The largest absolute gradient of each trainable parameter; None without a gradient."""
        return max_gradients(self.model, copy.copy(self.task), self.batch, self.step_context())


def _ready_batch(setup: TrainingSetup) -> Batch:
    batch = setup.full_batch
    if not _can_be_cut(batch):
        setup.max_samples = len(batch)
    elif len(batch) > MAX_SAMPLES:
        batch = batch.first(MAX_SAMPLES)
    built = setup.built
    with torch.no_grad():
        return built.preprocessor.on_device(batch.to(built.device))


def _can_be_cut(batch: Batch) -> bool:
    """Return whether every tensor has one row per sample, so that rows can be dropped."""
    tensors: list[Tensor] = [
        *batch.inputs.values(),
        *batch.targets.values(),
        *batch.masks.values(),
    ]
    return all(value.ndim and len(value) == len(batch) for value in tensors)
