"""``Subject``: what a check may read, each part made when a check first asks for it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.data import Data, Facts
from flambeau.data.loader import Loader
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.user_loader import UserLoaderDataset
from flambeau.doctor.passes import Pass, gradient_sizes, left_as_it_was, look
from flambeau.errors import InputError
from flambeau.global_rng import TemporarySeed
from flambeau.task.task import StepContext, Task

MOST_SAMPLES = 64
"""Of the first batch so many are looked at: enough for every check, and a bounded cost."""


class Parts(Protocol):
    """What a plan was made into; ``learner.built`` is one.

    One that has ``dataset(part)`` too lets checks read whole parts that are in memory.
    """

    preprocessor: Preprocessor
    task: Task
    model: nn.Module
    device: torch.device

    def loader(self, part: str) -> Loader:
        """Batches of "train", "valid" or "test"."""
        ...


@dataclass(frozen=True)
class Course:
    """How the model is going to be trained, as far as checks ask.

    Attributes:
        optimizers: Makes the optimizers by name from model and plan; None where nobody knows.
        own_optimizers: Whether a function of the user's makes them.
        own_step: Whether a function of the user's makes the steps.
        epochs: Passes over train, over all phases; None takes the plan's.
        lr: The highest learning rate; None takes the plan's.
        lr_is_measured: Whether the plan has tried it on the model.
        bn: The batch norm policy of each phase.
        trainable: Layer groups that learn in each phase; None for all.
        accumulate: Micro-batches in a step.
    """

    optimizers: Callable[[nn.Module, Mapping[str, Any]], Mapping[str, Optimizer]] | None = None
    own_optimizers: bool = False
    own_step: bool = False
    epochs: int | None = None
    lr: float | None = None
    lr_is_measured: bool = False
    bn: tuple[str, ...] = ("auto",)
    trainable: tuple[tuple[str, ...] | None, ...] = (None,)
    accumulate: int = 1


class Subject:
    """A set-up as the checks see it: plain things to read, none of them to be changed.

    Reading ``answer``, ``loss`` or ``look`` runs the model once as the first step would, in
    training mode but without augmentation, and ``gradients`` once more; weights, buffers, modes
    and generators are afterwards as before. The task is a shallow copy, so that what it counts for
    itself stays.

    Args:
        data: Every data choice.
        values: The plan's values by key.
        make: Gives model, task, preprocessor and loaders; called once, when a check first needs
            one of them, so that checks of the data alone cost nothing more.
        steps_done: Optimizer steps that the model has made; 0 before the first fit.
        seed: Of the forward pass's random draws (dropout).
        course: How the model is going to be trained.

    Attributes:
        data: As given.
        values: As given.
        steps_done: As given.
        seed: As given.
        course: As given.
        most_samples: How many samples of the first batch are looked at.
    """

    def __init__(
        self,
        data: Data,
        values: Mapping[str, Any],
        make: Callable[[], Parts],
        *,
        steps_done: int = 0,
        seed: int = 0,
        course: Course | None = None,
    ) -> None:
        self.data = data
        self.values = dict(values)
        self.steps_done = steps_done
        self.seed = seed
        self.course = course or Course()
        self.most_samples = MOST_SAMPLES
        self._make = make
        self._known: dict[Any, Any] = {}

    def once(self, function: Callable[[Subject], Any]) -> Any:
        """``function(self)``, computed once: for what several checks rest on."""
        if function not in self._known:
            self._known[function] = function(self)
        return self._known[function]

    @property
    def facts(self) -> Facts:
        """What was measured on the train rows."""
        return self.data.facts()

    # ------------------------------------------------------------ the parts

    @cached_property
    def parts(self) -> Parts:
        """Model, task, preprocessor and loaders."""
        return self._make()

    @property
    def model(self) -> nn.Module:
        """The model, on its device."""
        return self.parts.model

    @property
    def task(self) -> Task:
        """Loss, metrics and decoding."""
        return self.parts.task

    @cached_property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers of the coming run by name; empty where nobody knows them."""
        if self.course.optimizers is None:
            return {}
        with left_as_it_was(self.model, self.seed):
            return self.course.optimizers(self.model, self.values)

    def dataset(self, part: str) -> object | None:
        """The samples of a part, or None where there are none or they cannot be asked for."""
        give: Callable[[str], object] | None = getattr(self.parts, "dataset", None)
        if give is None or not len(self.data.split.part(part)):
            return None
        return give(part)

    def columns(self, part: str) -> MemoryDataset | None:
        """The samples of a part where they are tensors in memory, else None."""
        found = self.dataset(part)
        return found if isinstance(found, MemoryDataset) else None

    @property
    def n_steps(self) -> int:
        """Optimizer steps of the coming run; 0 where that is not known."""
        epochs = self.values.get("epochs", 0) if self.course.epochs is None else self.course.epochs
        per_epoch = self.parts.loader("train").steps_per_epoch
        return int(epochs) * math.ceil(per_epoch / self.course.accumulate)

    # ------------------------------------------------------------ the first batch

    @cached_property
    def whole_batch(self) -> Batch:
        """The first train batch as the loader gives it."""
        known = self.dataset("train")
        if isinstance(known, UserLoaderDataset) and known.first is not None:
            return known.first  # read when the data were made: no worker starts for the doctor
        with TemporarySeed().at(keyed.key(self.seed, "doctor")):
            batch = next(iter(self.parts.loader("train").batches(0)), None)
        if batch is None:
            raise InputError("The train loader gives no batch. Give more rows or smaller batches.")
        return batch

    @property
    def batch(self) -> Batch:
        """The first train batch as the model would see it, but for augmentation; 64 samples of it.

        Raises:
            InputError: The train loader gives no batch.
        """
        ready: Batch = self.once(_ready_batch)
        return ready if len(ready) <= self.most_samples else ready.first(self.most_samples)

    # ------------------------------------------------------------ the model's answer

    def context(self) -> StepContext:
        """What a forward pass is told besides the batch."""
        return StepContext(training=True, values=dict(self.task.values), seed=self.seed)

    @cached_property
    def look(self) -> Pass:
        """What a forward pass shows of the model."""
        return look(self.model, copy.copy(self.task), self.batch, self.context())

    @property
    def answer(self) -> Any:
        """What the model answers to ``batch``: logits, for most tasks."""
        return self.look.outputs

    @cached_property
    def loss(self) -> float:
        """The mean loss of ``batch``."""
        with torch.no_grad():
            total, weight = copy.copy(self.task).loss(self.answer, self.batch)
        return float(total) / float(weight)

    @cached_property
    def gradients(self) -> Mapping[str, float | None]:
        """The largest gradient of each parameter that learns; None where the loss has none."""
        return gradient_sizes(self.model, copy.copy(self.task), self.batch, self.context())


def _ready_batch(subject: Subject) -> Batch:
    batch = subject.whole_batch
    if not _can_be_cut(batch):
        subject.most_samples = len(batch)
    elif len(batch) > MOST_SAMPLES:
        batch = batch.first(MOST_SAMPLES)
    parts = subject.parts
    with torch.no_grad():
        return parts.preprocessor.on_device(batch.to(parts.device))


def _can_be_cut(batch: Batch) -> bool:
    """Whether every tensor has one row a sample, so that the first rows are the first samples."""
    tensors: list[Tensor] = [
        *batch.inputs.values(),
        *batch.targets.values(),
        *batch.masks.values(),
    ]
    return all(value.ndim and len(value) == len(batch) for value in tensors)
