"""``Subject``: what a check may read, each part made when a check first asks for it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.dataset import Data, Facts
from flambeau.data.generators import BorrowedGlobals
from flambeau.data.loader import Loader
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import InputError
from flambeau.task.task import StepContext, Task


class Parts(Protocol):
    """What a plan was made into; ``learner.realised`` is one."""

    preprocessor: Preprocessor
    task: Task
    model: nn.Module
    device: torch.device

    def loader(self, part: str) -> Loader:
        """Batches of "train", "valid" or "test"."""
        ...


class Subject:
    """A set-up as the checks see it: plain things to read, none of them to be changed.

    Reading ``answer`` or ``loss`` runs the model once as the first step would, in training mode
    but without augmentation; weights, buffers, modes and generators are afterwards as before.

    Args:
        data: Every data choice.
        values: The plan's values by key.
        make: Gives model, task, preprocessor and loaders; called once, when a check first needs
            one of them, so that checks of the data alone cost nothing more.
        steps_done: Optimizer steps that the model has made; 0 before the first fit.
        seed: Of the forward pass's random draws (dropout).

    Attributes:
        data: As given.
        values: As given.
        steps_done: As given.
    """

    def __init__(
        self,
        data: Data,
        values: Mapping[str, Any],
        make: Callable[[], Parts],
        *,
        steps_done: int = 0,
        seed: int = 0,
    ) -> None:
        self.data = data
        self.values = dict(values)
        self.steps_done = steps_done
        self._make = make
        self._seed = seed

    @property
    def facts(self) -> Facts:
        """What was measured on the train rows."""
        return self.data.facts()

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
    def batch(self) -> Batch:
        """The first train batch as the model would see it, but for augmentation.

        Raises:
            InputError: The train loader gives no batch.
        """
        parts = self.parts
        with BorrowedGlobals().at(keyed.key(self._seed, "doctor")):
            batch = next(iter(parts.loader("train").batches(0)), None)
        if batch is None:
            raise InputError("The train loader gives no batch. Give more rows or smaller batches.")
        with torch.no_grad():
            return parts.preprocessor.on_device(batch.to(parts.device))

    @cached_property
    def answer(self) -> Any:
        """What the model answers to ``batch``: logits, for most tasks."""
        context = StepContext(training=True, values=dict(self.task.values), seed=self._seed)
        with _left_as_it_was(self.model, self._seed), torch.no_grad():
            return self.task.forward(self.model.train(), self.batch, context)

    @cached_property
    def loss(self) -> float:
        """The mean loss of ``batch``."""
        with torch.no_grad():
            total, weight = self.task.loss(self.answer, self.batch)
        return float(total) / float(weight)


@contextmanager
def _left_as_it_was(model: nn.Module, seed: int) -> Generator[None]:
    """Puts back what a forward pass in training mode changes: buffers, modes, generators."""
    buffers: dict[str, Tensor] = {name: value.clone() for name, value in model.named_buffers()}
    modes = {module: module.training for module in model.modules()}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    accelerators = [device] if device.type == "cuda" else []
    try:
        with (
            torch.random.fork_rng(accelerators),  # pyright: ignore[reportUnknownMemberType]
            BorrowedGlobals().at(keyed.key(seed, "doctor")),
        ):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for name, value in model.named_buffers():
                if name in buffers:  # a forward pass may register new ones
                    value.copy_(buffers[name])
