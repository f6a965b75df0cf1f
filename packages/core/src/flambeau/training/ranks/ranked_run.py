"""``RankedRun``: a run that several processes make together, step for step that of one.

Each process has the whole model and its share of every batch (``LoaderOptions.rank``). Before each
step the processes tell each other how much their shares count and whether one of them wants to
stop; gradients, losses and metrics are added up, so that all of them hold the same weights, scores
and history. Process 0 writes the files.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.loader import loader_world_size
from flambeau.distributed.processes import ProcessGroup
from flambeau.errors import FlambeauWarning, InputError, NonFiniteError, TrainingError
from flambeau.global_rng import seed_globals
from flambeau.task.task import Task
from flambeau.training.components import Components
from flambeau.training.history import History
from flambeau.training.interrupt import Interrupt
from flambeau.training.nonfinite.guard import StepRecord
from flambeau.training.nonfinite.locate import Culprit
from flambeau.training.norm.freeze import keeps_statistics
from flambeau.training.ranks.ddp_step import DDPStep
from flambeau.training.ranks.ranked_step import RankedStep
from flambeau.training.run import Run, RunSettings
from flambeau.training.state import Position, StepResult
from flambeau.training.step import Step, known_weight, train_step

# torch exports these without complete types.
_dist = cast("Any", dist)

T = TypeVar("T")


class RankedRun(Run):
    """A ``Run`` whose steps are shared. Every process makes one, with the same arguments.

    Args:
        parts: The loaders give this process its share.
        settings: As for ``Run``.
        history: The same rows on every process.
        position: Where the run stands.
        processes: Who shares it.

    Raises:
        InputError: A loader does not share its batches.
        TrainingError: The processes have different models.

    Warns:
        FlambeauWarning: The model takes statistics of its batches, which are shares here.
    """

    def __init__(
        self,
        components: Components,
        settings: RunSettings,
        history: History,
        position: Position,
        processes: ProcessGroup,
    ) -> None:
        self.processes = processes
        self._pressed = Interrupt()
        self._over = False
        self._agreed = False
        self._lr_scale = Batch({}, weight=1.0)
        _check_loader(components, processes)
        _share_model(components.model, processes)
        if processes.is_main:
            _warn_of_statistics(components.model, settings)
        super().__init__(components, settings, history, position)
        self.ddp_step = DDPStep(processes, components.model)
        self._user_step = settings.options.train_step
        if self._user_step is train_step:
            self.train_step = self.ddp_step
        else:
            self.train_step = self._averaged_user_step
        self.step: RankedStep = RankedStep(
            self.state,
            self.update,
            self.precision,
            self.dispatch,
            group=processes,
        )
        self.is_main = processes.is_main
        self.shares_evaluation = (
            components.valid is not None and loader_world_size(components.valid) > 1
        )

    @contextmanager
    def connected(self) -> Generator[None]:
        if not self.processes.is_main:
            # A checkpoint holds what process 0 carries from batch to batch.
            self.state.context.carry = None
        try:
            yield
        except BaseException as error:
            if self._agreed:
                raise
            explained = self.processes.translate_error(error)
            self.processes.leave(error if explained is error else None)
            if explained is error:
                raise
            raise explained from error
        finally:
            self.ddp_step.end()

    def start_phase(self) -> None:
        super().start_phase()
        self.ddp_step.start()

    def listen_to(self, interrupt: Interrupt) -> None:
        # ``interrupt`` stays as it is: all processes end at one step, see ``_tell``.
        self._pressed = interrupt

    def stopped(self) -> bool:
        told = self.processes.all_gather((self.state.stop_reason, self._pressed.pending))
        self._end_if_pressed(any(pressed for _, pressed in told))
        self.state.stop_reason = next((reason for reason, _ in told if reason is not None), None)
        return self.state.stop_reason is not None

    def agreed(self, scores: Mapping[str, float]) -> Mapping[str, float]:
        return self.processes.broadcast(scores)

    def gathered(self, value: T) -> list[T]:
        return self.processes.all_gather(value)

    # The step

    def steps(self, grouped: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        self._over = False
        for micro_batches in grouped:
            mine = [batch for batch in micro_batches if len(batch)]
            self._tell(mine)
            if self._over:
                return
            self._seed_step()
            yield mine

    def end_steps(self) -> None:
        if not self._over:
            self._tell((), is_done=True)
        for buffer in self.components.model.buffers():
            _send(buffer, self.processes)

    def set_values(self, micro_batches: Sequence[Batch]) -> None:
        super().set_values((self._lr_scale,))

    def _tell(self, mine: Sequence[Batch], *, is_done: bool = False) -> None:
        """One exchange before each step and one after the last: a few numbers, added up."""
        weight = known_weight(mine, self.components.task)
        counts = [1.0 if batch.weight is None else batch.weight for batch in mine]
        scaled = sum(b.lr_scale * count for b, count in zip(mine, counts, strict=True))
        stops = self.state.stop_reason is not None
        own = (weight or 0.0, weight is None, scaled, sum(counts), stops, self._pressed.pending)
        told = self.processes.sum_over_ranks([*map(float, own), float(is_done), float(not mine)])
        total, unknown, scaled, counted, stopping, pressed, done, empty = told
        self._end_if_pressed(bool(pressed))
        self._over = bool(stopping) or done == self.processes.world_size
        if self._over:
            return
        if done:
            raise self._together(
                TrainingError(
                    f"{int(done)} of the {self.processes.world_size} processes have no batches "
                    "left, the others do: their train loaders have different lengths. Give every "
                    "process as many batches (DistributedSampler does), or hand over the data sets."
                )
            )
        if empty and self.options.train_step is not train_step:
            raise self._together(
                TrainingError(
                    f"The batch of step {self.state.position.step} has fewer samples than there "
                    f"are processes ({self.processes.world_size}), and a train_step of your own is "
                    "not called without samples. Choose a batch_size that leaves a larger last "
                    "batch."
                )
            )
        self.ddp_step.weight = None if unknown else total
        self.ddp_step.own_weight = weight or 0.0
        self._lr_scale = Batch({}, weight=1.0, lr_scale=scaled / counted if counted else 1.0)

    def _end_if_pressed(self, pressed: bool) -> None:
        if pressed:
            raise self._together(KeyboardInterrupt())

    def _together(self, error: BaseException) -> BaseException:
        """Marks an error that every process raises at this point."""
        self._agreed = True
        return error

    def _seed_step(self) -> None:
        """Other numbers for dropout than process 0 draws, the same ones after a resume."""
        rank = self.processes.rank
        if rank:
            number = keyed.key(self.state.seed, "process", rank, self.state.position.step)
            seed_globals(number)
            if self.state.device.type == "cuda":
                torch.cuda.manual_seed(number)

    def _averaged_user_step(
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
    ) -> StepResult:
        return self.step.mean(self._user_step(model, micro_batches, task, step))

    def blame(self, record: StepRecord, culprit: Culprit) -> NonFiniteError:
        """The error of the process whose samples it was, where one of them found it."""
        told = self.processes.all_gather((culprit.kind, str(super().blame(record, culprit))))
        found = [rank for rank, (kind, _) in enumerate(told) if kind != "unknown"]
        rank = found[0] if found else self.processes.rank
        error = NonFiniteError(f"On process {rank}: {told[rank][1]}")
        self._together(error)
        return error


def _check_loader(components: Components, processes: ProcessGroup) -> None:
    found = loader_world_size(components.train)
    if found != processes.world_size:
        raise InputError(
            f"{type(components.train).__name__} shares its batches among {found} processes, but the run "
            f"has {processes.world_size}, so samples would be seen several times an epoch. Let it "
            "give LoaderOptions.rank its part of each batch and carry LoaderOptions.world_size as "
            "an attribute world_size."
        )


def _share_model(model: nn.Module, processes: ProcessGroup) -> None:
    """The weights of process 0 on every process."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}
    for rank, theirs in enumerate(processes.all_gather(shapes)):
        if theirs != shapes:
            name = next(n for n in [*shapes, *theirs] if shapes.get(n) != theirs.get(n))
            raise TrainingError(
                f"Process {processes.rank} has another model than process {rank}: {name!r} is "
                f"{shapes.get(name)} here and {theirs.get(name)} there. Build the same model on "
                "every process; its first weights may differ, process 0 hands out its own."
            )
    for value in tensors.values():
        _send(value, processes)


@torch.no_grad()
def _send(value: Tensor, processes: ProcessGroup) -> None:
    """The value of process 0 into everyone's."""
    flat = value.detach().contiguous()
    _dist.broadcast(flat, 0)
    if not processes.is_main:
        value.copy_(flat)


def _warn_of_statistics(model: nn.Module, settings: RunSettings) -> None:
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    layers = [
        name
        for name, module in modules
        if keeps_statistics(module) and not isinstance(module, nn.SyncBatchNorm)
    ]
    if layers and any(phase.bn in ("auto", "train") for phase in settings.phases):
        warnings.warn(
            f"[statistics-per-process] {len(layers)} norm layers ({layers[0]!r}, …) normalise with "
            "the samples of their own process, so the steps differ from those of one process; "
            "evaluation uses the running statistics of process 0. On GPUs convert the model first, "
            "torch.nn.SyncBatchNorm.convert_sync_batchnorm(model); else keep the batch of each "
            "process large, or choose layers without batch statistics (GroupNorm).",
            FlambeauWarning,
            stacklevel=4,
        )
