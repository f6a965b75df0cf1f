"""Averages of the weights over training: by EMA, by SWA, or by a schedule-free optimizer.

``TriggeredAverage`` is a plain mean as SWA, but starts once a score no longer improves.

``spec.running()`` of a frozen spec returns the object that the loop starts on the model and updates
after each step. The loop evaluates inside ``swapped(model)`` and ends with ``finish(model)``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import get_swa_multi_avg_fn

from flambeau.checked_arguments import checked_count, checked_flag, checked_number
from flambeau.errors import InputError, ResumeError, TrainingError
from flambeau.task.metrics import Mode
from flambeau.training.freeze import has_running_statistics
from flambeau.training.history import History
from flambeau.training.optim.controller import checked_column, checked_mode, last_score, mode_of
from flambeau.training.optim.fused_step import with_inner
from flambeau.wording import name_some

_Move = Callable[[list[Tensor], list[Tensor], float], None]


@dataclass(frozen=True)
class EMA:
    """Exponential moving average of the weights.

    Attributes:
        decay: Factor of the average at each step; 0.999 averages about 1,000 steps.
        warmup: Start with a lower decay, ``(1 + t) / (10 + t)`` up to ``decay``, so that the random
            initial weights soon have little weight.

    Source:
        Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the
        warm-up is that of ``tf.train.ExponentialMovingAverage``.
    """

    decay: float = 0.999
    warmup: bool = True

    def __post_init__(self) -> None:
        decay = checked_number(self.decay, "The decay of EMA", at_least=0, below=1)
        object.__setattr__(self, "decay", decay)
        object.__setattr__(self, "warmup", checked_flag(self.warmup, "The warmup of EMA"))

    def running(self) -> RunningEMA:
        """Return a new average with the same settings."""
        return RunningEMA(self)


@dataclass(frozen=True)
class SWA:
    """Plain mean of the weights over the last part of the run.

    Attributes:
        start: Fraction of the run after which weights are averaged.

    Source:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization"
        (https://arxiv.org/abs/1803.05407). The paper averages once per epoch and recomputes the
        statistics of norm layers in a pass over the data; here every step is averaged, and the
        statistics are averaged like the weights.
    """

    start: float = 0.75

    def __post_init__(self) -> None:
        start = checked_number(self.start, "The start of SWA", at_least=0, below=1)
        object.__setattr__(self, "start", start)

    def running(self) -> RunningSWA:
        """Return a new average with the same settings."""
        return RunningSWA(self)


@dataclass(frozen=True)
class TriggeredAverage:
    """Plain mean of the weights of all steps after a score has stopped improving (NT-ASGD).

    Averaging starts after an evaluation whose score is worse than the best one before the last
    ``patience`` evaluations. Only the evaluations of the current fit count. Use it with a constant
    learning rate.

    Attributes:
        patience: Number of evaluations in which a score may stay behind an earlier one.
        monitor: Column of the history.
        mode: "min" or "max"; None selects the direction of the metric in ``monitor``.

    Source:
        Merity et al., "Regularizing and Optimizing LSTM Language Models"
        (https://arxiv.org/abs/1708.02182), algorithm 1. There SGD is used, and
        ``torch.optim.ASGD`` replaces it at the trigger; here any optimizer continues.
    """

    patience: int = 5
    monitor: str = "valid_loss"
    mode: Mode | None = None

    def __post_init__(self) -> None:
        what = "The patience of TriggeredAverage"
        patience = checked_count(self.patience, what, at_least=1, unit="evaluations")
        object.__setattr__(self, "patience", patience)
        checked_column(self.monitor)
        checked_mode(self.mode)

    def running(self) -> RunningTriggered:
        """Return a new average with the same settings."""
        return RunningTriggered(self)


AverageSpec = EMA | SWA | TriggeredAverage
"""A value of ``TrainingOptions.average``."""


class RunningAverage:
    """Base of EMA and SWA: averaged tensors, kept in addition to the model's tensors.

    Averages have the dtype of the weights, but float32 for weights in half precision: an update by
    0.001 of the difference is smaller than bf16 can represent.

    Attributes:
        averages_statistics: Whether the statistics of norm layers are averaged too.
        updates: Number of steps that the average includes.
    """

    averages_statistics = False

    def __init__(self) -> None:
        self.updates = 0
        self._names: list[str] = []
        self._current: list[Tensor] = []
        self._average: list[Tensor] = []
        self._is_wider = False
        self._counted: Tensor | None = None
        # ``move(averages, current, n)``: each average += (current - average) / (n + 1). Of torch's
        # public functions only this one takes a new n in each step, which the warm-up of EMA
        # needs: creating a new ``get_ema_multi_avg_fn`` takes 4 µs (2-core EPYC).
        self._move = cast("_Move", get_swa_multi_avg_fn())

    def start(self, model: nn.Module) -> None:
        """Start at the model's current weights."""
        named = self._averaged(model)
        self.updates = 0
        self._counted = None
        self._names = list(named)
        self._current = list(named.values())
        self._average = [_wide(tensor.detach().clone()) for tensor in self._current]
        pairs = zip(self._average, self._current, strict=True)
        self._is_wider = any(a.dtype != c.dtype for a, c in pairs)

    def evaluated(self, history: History) -> None:
        """Take note of an evaluation, whose scores are the last row of the history."""

    def update(self, step: int, total_steps: int, skipped: Tensor | bool = False) -> None:
        """Include the weights after ``step`` in the average, without a read from the device.

        Args:
            step: Number of the step, from 1.
            total_steps: Steps of the run.
            skipped: Whether the step was skipped because it was not finite; on an accelerator a
                float32 0-d tensor, 1 for a skipped step.
        """
        if skipped is True or not self._includes(step, total_steps):
            return
        if isinstance(skipped, Tensor):
            self._update_masked(skipped)
            return
        if self._average:
            current = _match(self._current, self._average) if self._is_wider else self._current
            self._move(self._average, current, self._earlier(self.updates))
        self.updates += 1

    @torch.no_grad()
    def _update_masked(self, skipped: Tensor) -> None:
        """Include the weights unless the step was skipped; the device counts the updates."""
        if self._counted is None:
            self._counted = torch.full_like(skipped, self.updates)
        share = (1.0 - skipped) / (1.0 + self._earlier_on_device(self._counted))
        for average, current in zip(self._average, self._current, strict=True):
            average.add_((current.to(average.dtype) - average) * share.to(average.dtype))
        self._counted += 1.0 - skipped

    def _read_count(self) -> None:
        """Read the number of updates from the device if the device counts them."""
        if self._counted is not None:
            self.updates = int(self._counted)  # host read: at an evaluation or a checkpoint

    @contextmanager
    def swapped(self, model: nn.Module) -> Generator[None]:
        """Use the averaged weights in the model inside the block, then restore its weights.

        Before the first update of the average, the block uses the model's own weights.
        """
        self._read_count()
        if self.updates == 0:
            yield
            return
        original = [tensor.detach().clone() for tensor in self._current]
        self.finish(model)
        try:
            yield
        finally:
            _copy(original, self._current)

    def finish(self, model: nn.Module) -> None:
        """Write the average into the model; does nothing before the first update."""
        if not self._names:
            raise TrainingError("The average was not started. Call start(model) first.")
        self._read_count()
        if self.updates:
            _copy(_match(self._average, self._current), self._current)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged tensors by name and the number of updates, for a checkpoint."""
        self._read_count()
        tensors = dict(zip(self._names, self._average, strict=True))
        return {"updates": self.updates, "tensors": tensors}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned; call ``start`` first.

        Raises:
            ResumeError: The names of the saved tensors are not those of this model's tensors.
        """
        tensors: Mapping[str, Tensor] = state["tensors"]
        if sorted(tensors) != sorted(self._names):
            odd = sorted(set(tensors) ^ set(self._names))
            raise ResumeError(
                "The tensors of the saved average differ from the tensors of the model: "
                f"{name_some(odd)}. "
                "Resume with the model and the averaging of the interrupted run."
            )
        with torch.no_grad():
            for name, average in zip(self._names, self._average, strict=True):
                average.copy_(tensors[name])
        self.updates, self._counted = int(state["updates"]), None

    def _averaged(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the tensors to average, by name: tied parameters once, no tensors of integers."""
        return {name: p for name, p in model.named_parameters() if _has_mean(p)}

    def _includes(self, step: int, total_steps: int) -> bool:
        """Return whether the weights after this step are included in the average."""
        return True

    def _earlier(self, updates: int) -> float:
        """Return the weight of the previous average; the current weights count with weight 1."""
        raise NotImplementedError(f"{type(self).__name__} must define _earlier.")

    def _earlier_on_device(self, updates: Tensor) -> Tensor:
        """Return the result of ``_earlier`` if the number of updates is a tensor on the device."""
        raise NotImplementedError(f"{type(self).__name__} must define _earlier_on_device.")


class RunningEMA(RunningAverage):
    """A running exponential average of the parameters.

    Buffers are not averaged: the statistics of a norm layer are already a
    moving average of recent steps, and averaging them again would only delay them.
    """

    def __init__(self, spec: EMA) -> None:
        super().__init__()
        self.spec = spec

    def _earlier(self, updates: int) -> float:
        decay = self.spec.decay
        if self.spec.warmup:
            decay = min(decay, (1.0 + updates) / (10.0 + updates))
        return decay / (1.0 - decay)

    def _earlier_on_device(self, updates: Tensor) -> Tensor:
        decay = torch.full_like(updates, self.spec.decay)
        if self.spec.warmup:
            decay = torch.minimum(decay, (1.0 + updates) / (10.0 + updates))
        return decay / (1.0 - decay)


class RunningMean(RunningAverage):
    """A running mean of the parameters and of the norm layers' statistics; base of two averages.

    The mean differs from the weights of each single step, so the statistics of the last step do not
    match it. Their mean over the same steps is close, and needs no further pass over the data.
    """

    averages_statistics = True

    def _averaged(self, model: nn.Module) -> dict[str, Tensor]:
        named = super()._averaged(model)
        statistics = {
            id(buffer)
            for module in model.modules()
            if has_running_statistics(module)
            for buffer in module.buffers(recurse=False)
            if buffer.is_floating_point()
        }
        named.update({n: buffer for n, buffer in model.named_buffers() if id(buffer) in statistics})
        return named

    def _earlier(self, updates: int) -> float:
        return updates

    def _earlier_on_device(self, updates: Tensor) -> Tensor:
        return updates


class RunningSWA(RunningMean):
    """The mean over the last part of the run."""

    def __init__(self, spec: SWA) -> None:
        super().__init__()
        self.spec = spec

    def _includes(self, step: int, total_steps: int) -> bool:
        return step > self.spec.start * total_steps


class RunningTriggered(RunningMean):
    """The mean over all steps after the trigger.

    Attributes:
        triggered: Whether averaging has started.
    """

    def __init__(self, spec: TriggeredAverage) -> None:
        super().__init__()
        self.spec = spec
        self.triggered = False

    def start(self, model: nn.Module) -> None:
        super().start(model)
        self.triggered = False

    def evaluated(self, history: History) -> None:
        """Start averaging if the last score is worse than the best one before the patience.

        Raises:
            InputError: The history has no column ``monitor``.
            ArgumentError: It is not known which values of ``monitor`` are better.
        """
        last_score(history, self.spec.monitor)
        mode = mode_of(self.spec.monitor, history.modes, self.spec.mode)
        sign = 1.0 if mode == "min" else -1.0
        *earlier, last = (sign * s for s in history.column(self.spec.monitor, last_fit=True))
        before = earlier[: -self.spec.patience]
        self.triggered |= bool(before) and last > min(before)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "triggered": self.triggered}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.triggered = bool(state["triggered"])

    def _includes(self, step: int, total_steps: int) -> bool:
        return self.triggered


class OptimizerAverage(RunningAverage):
    """The average that an optimizer with ``train()`` and ``eval()`` keeps itself (schedule-free).

    ``eval()`` writes the averaged weights into the parameters, and ``train()`` writes the training
    weights. Calling both does not restore the training weights bit for bit, so these are also
    copied: neither an evaluation nor a checkpoint changes the training.

    Args:
        optimizers: The optimizers that have ``train()`` and ``eval()``.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        super().__init__()
        self._optimizers = cast("Sequence[Any]", optimizers)

    def start(self, model: nn.Module) -> None:
        self.updates = 0
        named = dict(model.named_parameters())
        self._names, self._current = list(named), list(named.values())
        for optimizer in self._optimizers:
            optimizer.train()

    def update(self, step: int, total_steps: int, skipped: Tensor | bool = False) -> None:
        self.updates += 1

    @contextmanager
    def swapped(self, model: nn.Module) -> Generator[None]:
        original = [tensor.detach().clone() for tensor in self._current]
        self.finish(model)
        try:
            yield
        finally:
            for optimizer in self._optimizers:
                optimizer.train()
            _copy(original, self._current)

    def finish(self, model: nn.Module) -> None:
        for optimizer in self._optimizers:
            optimizer.eval()

    def state_dict(self) -> dict[str, Any]:
        with self.swapped(nn.Module()):
            average = [tensor.detach().clone() for tensor in self._current]
        return {"updates": self.updates, "tensors": dict(zip(self._names, average, strict=True))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.updates = int(state["updates"])  # the optimizer has the rest of the state


def running_average(
    spec: AverageSpec | None, optimizers: Iterable[Optimizer]
) -> RunningAverage | None:
    """Return the average of a run: by ``spec``, by schedule-free optimizers, or None.

    Raises:
        InputError: There is a ``spec``, but an optimizer averages the weights already.
    """
    found: list[Optimizer] = []
    for optimizer in optimizers:
        every = [each for each in with_inner(optimizer) if _averages(each)]
        # A wrapper with these methods calls those of the optimizer in it.
        found += [optimizer] if optimizer in every else every
    if not found:
        return spec and spec.running()
    if spec is not None:
        raise InputError(
            f"{type(found[0]).__name__} averages the weights itself (it has train() and eval()), "
            f"so average={spec!r} would average its averages. Omit average=."
        )
    return OptimizerAverage(found)


def _averages(optimizer: Optimizer) -> bool:
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


def _has_mean(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


@torch.no_grad()
def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def _match(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
    """Return the sources in the dtypes of the targets; a tensor is not copied if its dtype fits."""
    return [s.to(t.dtype) for s, t in zip(sources, targets, strict=True)]
