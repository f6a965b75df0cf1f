"""Measure time, memory and numerical agreement with trial steps on a copy of the model.

Nothing outside the copy changes: weights, buffers, gradients, generators, number of threads and the
order of the samples stay bit for bit the same (``tests/core/tuning/test_trial.py``).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader
from flambeau.device import num_threads
from flambeau.global_rng import generator_states, preserve_generators, restore_generators
from flambeau.phases.phase import Phase
from flambeau.training.compile import compile_model
from flambeau.training.components import Components
from flambeau.training.history import History
from flambeau.training.loop import train_epoch
from flambeau.training.options import TrainingOptions
from flambeau.training.run import Run, RunSettings
from flambeau.training.run_state.checkpoint_content import user_objects
from flambeau.training.run_state.preserve import preserve_objects
from flambeau.training.state import Position
from flambeau.tuning.memory import metered

_WARM_UP = 2  # steps that are not timed: they allocate memory and select kernels


@dataclass(frozen=True)
class StepSetting:
    """Settings that change the speed of a step, but (except for rounding) not its result.

    Attributes:
        precision: The plan's "precision".
        memory_format: The plan's "memory_format".
        num_threads: The plan's "num_threads".
        compile: The plan's "compile".
    """

    precision: str = "fp32"
    memory_format: str = "contiguous_format"
    num_threads: int = field(default_factory=torch.get_num_threads)
    compile: str = "off"


@dataclass(frozen=True)
class PrecisionAgreement:
    """Agreement of a step in another precision with fp32, for the same batch and random draws.

    Attributes:
        loss_error: Relative difference of the losses.
        cosine: Cosine similarity of the gradients of all parameters.
    """

    loss_error: float
    cosine: float

    # bf16 has 8 significant bits. Loss error and cosine before the first step (2-core EPYC):
    # transformer 0.004 %, 1.0000; MLP 0.01 %, 1.0000; resnet18 0.1 %, 0.931; small_cnn 0.4 %,
    # 0.974.
    # small_cnn reaches the same accuracy in bf16, so batch norm's rounding errors in an untrained
    # network must be accepted; an angle above 37° between the gradients is not.
    MAX_LOSS_ERROR = 0.02
    MIN_COSINE = 0.8

    @property
    def is_close(self) -> bool:
        """Whether loss and gradients agree well enough to train in that precision."""
        return self.loss_error <= self.MAX_LOSS_ERROR and self.cosine >= self.MIN_COSINE


@dataclass(frozen=True)
class Trial:
    """Runs trial steps on a copy of the model.

    Attributes:
        components: Components of the run that will follow; they are not changed.
        options: Training options of that run. Trials are not possible with a custom train step; see
            ``why_not_testable``.
        phase: Defines the trainable groups and the initial learning rate.
        samples: ``samples(n)`` returns a batch of n train samples, as the loader would.
        clock: Returns seconds from any starting point.
    """

    components: Components
    options: TrainingOptions
    phase: Phase
    samples: Callable[[int], Batch]
    clock: Callable[[], float] = time.perf_counter

    def step_times(self, setting: StepSetting, batch_size: int, steps: int) -> list[float]:
        """Return the seconds of each of ``steps`` training steps, after two untimed ones."""
        with preserve_generators(), num_threads(setting.num_threads):
            batch = self.samples(batch_size)
            times = _Times(batch, _WARM_UP + steps, self._now)
            with self._run(setting, times) as run:
                train_epoch(run)
            return times.seconds()[_WARM_UP:]

    def peak_bytes(self, setting: StepSetting, batch_size: int) -> tuple[int, int]:
        """Return the peak bytes before the backward pass, and the peak bytes of the whole step."""
        with preserve_generators(), num_threads(setting.num_threads):
            batch = self.samples(batch_size)
            known = [*batch.inputs.values(), *batch.targets.values()]
            with self._run(setting, _Times(batch, 1, self._now)) as run:
                model = run.components.model
                known += [*model.parameters(), *model.buffers()]
                kept: list[int] = []

                def update_bytes() -> int:
                    return _update_bytes(model, run.optimizers.values())

                with metered(self.components.device, known, update_bytes) as meter:
                    backward = run.step.backward

                    def noted(
                        loss: Tensor, divisor: float = 1.0, *, retain_graph: bool = False
                    ) -> None:
                        kept.append(meter.forward_bytes())
                        backward(loss, divisor, retain_graph=retain_graph)

                    run.step.backward = noted
                    train_epoch(run)
                    whole = meter.step_bytes()
            return max(kept, default=whole), whole

    def agreement(self, setting: StepSetting, batch_size: int) -> PrecisionAgreement:
        """Compare a step with ``setting`` to a step in fp32."""
        with preserve_generators():
            batch = self.samples(batch_size)
            states = generator_states()
            found: list[tuple[float, Tensor]] = []
            for each in (replace(setting, precision="fp32", compile="off"), setting):
                restore_generators(states)
                found.append(self._loss_and_gradient(each, batch))
        (loss, exact), (other_loss, other) = found
        norms = math.sqrt(float(exact @ exact) * float(other @ other))
        cosine = float(exact @ other) / norms if norms else float(torch.equal(exact, other))
        return PrecisionAgreement(abs(other_loss - loss) / max(abs(loss), 1e-12), cosine)

    def _loss_and_gradient(self, setting: StepSetting, batch: Batch) -> tuple[float, Tensor]:
        with self._run(setting, _Times(batch, 1, self._now)) as run:
            task, model = run.components.task, run.components.model
            ready = run.prepare_train(_fresh(batch))
            with run.step.autocast():
                outputs = task.forward(model, ready, run.state.context)
                total, weight = task.loss(outputs, ready)
            learning = [p for p in model.parameters() if p.requires_grad]
            found = torch.autograd.grad(total / weight, learning, allow_unused=True)
            gradients = [g for g in cast("tuple[Tensor | None, ...]", found) if g is not None]
            flat = [g.detach().flatten().double().cpu() for g in gradients]
            return float(total.detach() / weight), torch.cat(flat)

    def _now(self) -> float:
        if self.components.device.type == "cuda":
            torch.cuda.synchronize(self.components.device)
        return self.clock()

    @contextmanager
    def _run(self, setting: StepSetting, loader: Loader) -> Generator[Run]:
        """Yield a run on a copy of the model, at the start of its first epoch."""
        model: nn.Module = copy.deepcopy(self.components.model)
        layout = getattr(torch, setting.memory_format)
        compile_model(model.to(memory_format=layout), setting.compile)
        components = replace(
            self.components,
            model=model,
            task=copy.deepcopy(self.components.task),
            train=loader,
            valid=None,
            on_device=_with_memory_format(self.components.on_device, layout),
            values={**self.components.values, "precision": setting.precision},
        )
        # The run itself reports a step that is not finite, with its number.
        nonfinite = "skip" if self.options.nonfinite == "raise" else self.options.nonfinite
        options = replace(
            self.options,
            average=None,
            controllers=(),
            accumulate=1,
            keep_best=None,
            nonfinite=nonfinite,
        )
        phase = replace(self.phase, epochs=1, steps=None, evaluate_every=None)
        with preserve_objects(*user_objects(self.components, options).values()):
            run = Run(components, RunSettings(options, (phase,)), History(), Position())
            run.start_phase()
            try:
                yield run
            finally:
                run.release()


class _Times(Loader):
    """A loader that repeats one batch and records the time of each request."""

    def __init__(self, batch: Batch, steps: int, clock: Callable[[], float]) -> None:
        self._batch, self._steps, self._clock = batch, steps, clock
        self._requested_s: list[float] = []

    @property
    def steps_per_epoch(self) -> int:
        return self._steps

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for _ in range(self._steps):
            self._requested_s.append(self._clock())
            yield _fresh(self._batch)
        self._requested_s.append(self._clock())

    def seconds(self) -> list[float]:
        """Return the seconds of each step."""
        return [
            after - before
            for before, after in zip(self._requested_s, self._requested_s[1:], strict=False)
        ]


def _update_bytes(model: nn.Module, optimizers: Iterable[Optimizer]) -> int:
    """Return the size in bytes of the gradients and of the optimizers' state."""
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    values = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    values += [parameter for parameter in model.parameters() if parameter.requires_grad]
    return sum(value.nbytes for value in values)


def _fresh(batch: Batch) -> Batch:
    """Return a copy of the batch, because a transform may change it in place."""
    return replace(
        batch,
        inputs={name: value.clone() for name, value in batch.inputs.items()},
        targets={name: value.clone() for name, value in batch.targets.items()},
    )


def _with_memory_format(
    on_device: Callable[[Batch], Batch], layout: torch.memory_format
) -> Callable[[Batch], Batch]:
    """Return the function ``on_device``, extended to convert 4-d inputs to ``layout``."""

    def prepared(batch: Batch) -> Batch:
        batch = on_device(batch)
        inputs = {
            name: value.contiguous(memory_format=layout)
            if value.ndim == 4 and value.is_floating_point()
            else value
            for name, value in batch.inputs.items()
        }
        return replace(batch, inputs=inputs)

    return prepared


def why_not_testable(components: Components, options: TrainingOptions, free_bytes: int) -> str:
    """Return why no trial step is possible; empty if it is."""
    if options.train_step is not TrainingOptions.train_step:
        return "A custom train_step is only called for training."
    weights: Sequence[Tensor] = [*components.model.parameters(), *components.model.buffers()]
    size = sum(value.nbytes for value in weights)
    if free_bytes and size > free_bytes / 4:
        return (
            f"A copy of the model for trial steps would take {size / 1e6:,.0f} MB of "
            f"{free_bytes / 1e6:,.0f} MB free."
        )
    return ""
