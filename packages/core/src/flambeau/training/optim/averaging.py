"""Averages of the weights over training: EMA and SWA.

A frozen spec says which, ``spec.running()`` gives the object that the loop starts on the model and
updates after each step; it evaluates in ``swapped(model)`` and ends with ``finish(model)``.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flambeau.errors import InputError, ResumeError, TrainingError
from flambeau.training import foreach
from flambeau.training.norm.freeze import keeps_statistics


@dataclass(frozen=True)
class EMA:
    """Exponential moving average of the weights.

    Attributes:
        decay: What of the average stays at each step; 0.999 remembers about 1,000 steps.
        warmup: Lets the decay grow as ``(1 + t) / (10 + t)`` up to ``decay``, so that the random
            first weights are forgotten soon.

    Source:
        Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the
        warm-up is that of ``tf.train.ExponentialMovingAverage``.
    """

    decay: float = 0.999
    warmup: bool = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise InputError(f"EMA's decay is a share in 0..1 (below 1), not {self.decay}.")

    def running(self) -> RunningEMA:
        """A fresh average with these settings."""
        return RunningEMA(self)


@dataclass(frozen=True)
class SWA:
    """Plain mean of the weights over the last part of the run.

    Attributes:
        start: Share of the run after which weights count.

    Source:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization"
        (https://arxiv.org/abs/1803.05407). There once an epoch, and with a pass over the data for
        the norm layers; here every step, and their statistics are averaged as the weights are.
    """

    start: float = 0.75

    def __post_init__(self) -> None:
        if not 0.0 <= self.start < 1.0:
            raise InputError(f"SWA starts at a share in 0..1 (below 1), not {self.start}.")

    def running(self) -> RunningSWA:
        """A fresh average with these settings."""
        return RunningSWA(self)


class RunningAverage:
    """What EMA and SWA share: averaged tensors beside those of the model.

    Averages have the dtype of the weights, half precision has them in float32: a step of 0.001 of
    the difference is below what bf16 can add.
    """

    def __init__(self) -> None:
        self.updates = 0
        self._names: list[str] = []
        self._current: list[Tensor] = []
        self._average: list[Tensor] = []
        self._is_wider = False

    def start(self, model: nn.Module) -> None:
        """Begins at the model's present weights."""
        named = self._averaged(model)
        self.updates = 0
        self._names = list(named)
        self._current = list(named.values())
        self._average = [_wide(tensor.detach().clone()) for tensor in self._current]
        pairs = zip(self._average, self._current, strict=True)
        self._is_wider = any(a.dtype != c.dtype for a, c in pairs)

    def update(self, step: int, total_steps: int) -> None:
        """Takes in the weights after ``step`` (from 1) of ``total_steps``; no host read."""
        weight = self._weight(step, total_steps)
        if weight is None:
            return
        current = _match(self._current, self._average) if self._is_wider else self._current
        with torch.no_grad():
            foreach.lerp_(self._average, current, weight)
        self.updates += 1

    @contextmanager
    def swapped(self, model: nn.Module) -> Generator[None]:
        """The averaged weights in the model for the length of the block; its own come back.

        Before the first update the model keeps its own.
        """
        if self.updates == 0:
            yield
            return
        own = [tensor.detach().clone() for tensor in self._current]
        self.finish(model)
        try:
            yield
        finally:
            with torch.no_grad():
                foreach.copy_(self._current, own)

    def finish(self, model: nn.Module) -> None:
        """Writes the average into the model; nothing before the first update."""
        if not self._names:
            raise TrainingError("The average was never started. Call start(model) first.")
        if self.updates:
            with torch.no_grad():
                foreach.copy_(self._current, _match(self._average, self._current))

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: the averaged tensors by name, and how often they were updated."""
        tensors = dict(zip(self._names, self._average, strict=True))
        return {"updates": self.updates, "tensors": tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``, after ``start``.

        Raises:
            ResumeError: The tensors are not those of this model.
        """
        tensors: Mapping[str, Tensor] = state["tensors"]
        if sorted(tensors) != sorted(self._names):
            odd = sorted(set(tensors) ^ set(self._names))
            raise ResumeError(
                f"The saved average has other tensors than the model: {', '.join(odd[:5])}. Resume "
                "with the model and the averaging (EMA or SWA) that the run began with."
            )
        with torch.no_grad():
            for name, average in zip(self._names, self._average, strict=True):
                average.copy_(tensors[name])
        self.updates = int(state["updates"])

    def _averaged(self, model: nn.Module) -> dict[str, Tensor]:
        """What is averaged, by name; tied parameters once."""
        return dict(model.named_parameters())

    def _weight(self, step: int, total_steps: int) -> float | None:
        """How much the present weights count; None where they do not."""
        raise NotImplementedError(f"{type(self).__name__} must define _weight.")


class RunningEMA(RunningAverage):
    """A running exponential average of the parameters.

    Buffers stay the model's own, in evaluation too: a norm layer's statistics are a moving average
    of recent steps already, and a second one on top would only lag behind.
    """

    def __init__(self, spec: EMA) -> None:
        super().__init__()
        self.spec = spec

    def _weight(self, step: int, total_steps: int) -> float | None:
        decay = self.spec.decay
        if self.spec.warmup:
            decay = min(decay, (1.0 + self.updates) / (10.0 + self.updates))
        return 1.0 - decay


class RunningSWA(RunningAverage):
    """A running mean of the parameters and of the norm layers' statistics.

    The mean lies away from any single step's weights, so that the last step's statistics do not
    fit it; their mean over the same steps is close, and needs no further pass over the data.
    """

    def __init__(self, spec: SWA) -> None:
        super().__init__()
        self.spec = spec

    def _averaged(self, model: nn.Module) -> dict[str, Tensor]:
        named: dict[str, Tensor] = dict(model.named_parameters())
        statistics = {
            id(buffer)
            for module in model.modules()
            if keeps_statistics(module)
            for buffer in module.buffers(recurse=False)
            if buffer.is_floating_point()
        }
        named.update({n: buffer for n, buffer in model.named_buffers() if id(buffer) in statistics})
        return named

    def _weight(self, step: int, total_steps: int) -> float | None:
        if step <= self.spec.start * total_steps:
            return None
        return 1.0 / (self.updates + 1)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _match(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
    """The sources in the targets' dtypes; the very same tensors where they agree."""
    return [s.to(t.dtype) for s, t in zip(sources, targets, strict=True)]
