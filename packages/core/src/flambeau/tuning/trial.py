"""The real training step, tried on a copy: what it takes in time and memory, and how exact it is.

Nothing outside the copy changes: weights, buffers, gradients, generators, the number of threads and
the order of the samples are bit for bit what they were (``tests/core/plan/test_trial.py``).
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
from flambeau.global_rng import generator_states, preserved_generators, restore_generators
from flambeau.phases.phase import Phase
from flambeau.training.compile import compile_model
from flambeau.training.components import Components
from flambeau.training.history import History
from flambeau.training.loop import train_epoch
from flambeau.training.options import TrainingOptions
from flambeau.training.run import Run, RunSettings
from flambeau.training.state import Position
from flambeau.tuning.memory import metered

_WARM_UP = 2  # steps: the first allocates, and kernels choose their way in it


@dataclass(frozen=True)
class StepSetting:
    """How a step is computed, without changing what it computes.

    Attributes:
        precision: As in the plan.
        memory_format: As in the plan.
        num_threads: As in the plan.
        compile: As in the plan.
    """

    precision: str = "fp32"
    memory_format: str = "contiguous_format"
    num_threads: int = field(default_factory=torch.get_num_threads)
    compile: str = "off"


@dataclass(frozen=True)
class PrecisionAgreement:
    """How far a step in another precision is from that in fp32, on the same batch and draws.

    Attributes:
        loss_error: Difference of the losses, relative to that in fp32.
        cosine: Of the angle between the two gradients of all parameters; 1 is the same direction.
    """

    loss_error: float
    cosine: float

    # bf16 keeps 8 bits of a product. Measured before the first step (2-core EPYC), loss off by and
    # cosine: transformer 0.004 %, 1.0000; MLP 0.01 %, 1.0000; resnet18 0.1 %, 0.931; small_cnn
    # 0.4 %, 0.974. small_cnn reaches the same accuracy in it, so what batch norm makes of rounding
    # on a fresh network is no reason to refuse; a step that goes another way by more than 37° is.
    MAX_LOSS_ERROR = 0.02
    MIN_COSINE = 0.8

    @property
    def is_close(self) -> bool:
        """Whether both are within what training was seen not to notice."""
        return self.loss_error <= self.MAX_LOSS_ERROR and self.cosine >= self.MIN_COSINE


@dataclass(frozen=True)
class Trial:
    """Where steps are tried.

    Attributes:
        parts: Of the run that is to come; they are not touched.
        options: Likewise. A ``train_step`` of the user's own is not for trials, see ``why_not_testable``.
        phase: Which groups learn, and the first learning rate.
        samples: ``samples(n)`` gives a batch of n train samples as the loader would.
        clock: Seconds that pass.
    """

    components: Components
    options: TrainingOptions
    phase: Phase
    samples: Callable[[int], Batch]
    clock: Callable[[], float] = time.perf_counter

    def step_times(self, setting: StepSetting, batch_size: int, steps: int) -> list[float]:
        """Seconds of each of ``steps`` training steps, after two that are not counted."""
        with preserved_generators(), num_threads(setting.num_threads):
            batch = self.samples(batch_size)
            times = _Times(batch, _WARM_UP + steps, self._now)
            with self._run(setting, times) as run:
                train_epoch(run)
            return times.seconds()[_WARM_UP:]

    def peak_bytes(self, setting: StepSetting, batch_size: int) -> tuple[int, int]:
        """Bytes at the peak before the backward pass, and at the peak of a whole step."""
        with preserved_generators(), num_threads(setting.num_threads):
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

                    def noted(loss: Tensor, divisor: float = 1.0) -> None:
                        kept.append(meter.forward_bytes())
                        backward(loss, divisor)

                    run.step.backward = noted
                    train_epoch(run)
                    whole = meter.step_bytes()
            return max(kept, default=whole), whole

    def agreement(self, setting: StepSetting, batch_size: int) -> PrecisionAgreement:
        """The step of ``setting`` against that in fp32."""
        with preserved_generators():
            batch = self.samples(batch_size)
            draws = generator_states()
            found: list[tuple[float, Tensor]] = []
            for each in (replace(setting, precision="fp32", compile="off"), setting):
                restore_generators(draws)
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
        """A run of its own on a copy of the model, in the mode of its first epoch."""
        model: nn.Module = copy.deepcopy(self.components.model)
        layout = getattr(torch, setting.memory_format)
        compile_model(model.to(memory_format=layout), setting.compile)
        components = replace(
            self.components,
            model=model,
            task=copy.deepcopy(self.components.task),
            train=loader,
            valid=None,
            on_device=_laid_out(self.components.on_device, layout),
            values={**self.components.values, "precision": setting.precision},
        )
        # A step that is not finite is the run's to report, with its number.
        nonfinite = "skip" if self.options.nonfinite == "raise" else self.options.nonfinite
        options = replace(
            self.options,
            average=None,
            controllers=(),
            accumulate=1,
            keep_best=None,
            nonfinite=nonfinite,
        )
        phase = replace(self.phase, epochs=1)
        run = Run(components, RunSettings(options, (phase,)), History(), Position())
        run.start_phase()
        try:
            yield run
        finally:
            run.release()


class _Times(Loader):
    """The same batch again and again; it notes when it is asked for the next one."""

    def __init__(self, batch: Batch, steps: int, clock: Callable[[], float]) -> None:
        self._batch, self._steps, self._clock = batch, steps, clock
        self._asked: list[float] = []

    @property
    def steps_per_epoch(self) -> int:
        return self._steps

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for _ in range(self._steps):
            self._asked.append(self._clock())
            yield _fresh(self._batch)
        self._asked.append(self._clock())

    def seconds(self) -> list[float]:
        """Of each step."""
        return [after - before for before, after in zip(self._asked, self._asked[1:], strict=False)]


def _update_bytes(model: nn.Module, optimizers: Iterable[Optimizer]) -> int:
    """Return the size of the gradients and of the optimizers' state."""
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    values = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    values += [parameter for parameter in model.parameters() if parameter.requires_grad]
    return sum(value.nbytes for value in values)


def _fresh(batch: Batch) -> Batch:
    """A copy: a transform may write into what it is given."""
    return replace(
        batch,
        inputs={name: value.clone() for name, value in batch.inputs.items()},
        targets={name: value.clone() for name, value in batch.targets.items()},
    )


def _laid_out(
    on_device: Callable[[Batch], Batch], layout: torch.memory_format
) -> Callable[[Batch], Batch]:
    """``on_device`` with pictures in the layout, as a preprocessor of that layout would give."""

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
    """Why no step can be tried; empty where it can."""
    if options.train_step is not TrainingOptions.train_step:
        return "A train_step of your own is called for training only."
    weights: Sequence[Tensor] = [*components.model.parameters(), *components.model.buffers()]
    size = sum(value.nbytes for value in weights)
    if free_bytes and size > free_bytes / 4:
        return (
            f"A copy of the model to try steps on would take {size / 1e6:,.0f} MB of "
            f"{free_bytes / 1e6:,.0f} free."
        )
    return ""
