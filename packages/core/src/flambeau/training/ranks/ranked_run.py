"""``RankedRun``: a run on several ranks, whose steps equal the steps of a run in one process.

Each rank has the whole model and its part of every batch (``LoaderOptions.rank``). Before each step
the ranks exchange the weights of their parts, and whether one of them ends the run. Gradients,
losses and metrics are reduced over the ranks, so that all have the same weights, scores and
history. Rank 0 writes the files.
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
from flambeau.nested import to_cpu
from flambeau.task.task import Task
from flambeau.task.task_module import trained_module
from flambeau.training.components import Components
from flambeau.training.freeze import has_running_statistics
from flambeau.training.history import History
from flambeau.training.interrupt import Interrupt
from flambeau.training.loop import keeps_carry
from flambeau.training.nonfinite.guard import StepRecord
from flambeau.training.nonfinite.locate import NonFiniteSource
from flambeau.training.ranks.ddp_step import DDPStep
from flambeau.training.ranks.rank_states import RankStates
from flambeau.training.ranks.ranked_step import RankedStep
from flambeau.training.run import Run, RunSettings
from flambeau.training.state import Position, StepResult
from flambeau.training.step import Step, checked_result, known_weight, train_step

# torch exports these without complete types.
_dist = cast("Any", dist)

T = TypeVar("T")

_EXCHANGED = 8
"""Numbers that the ranks exchange before a step."""


class RankedRun(Run):
    """The ``Run`` of one rank; every rank creates one with the same arguments.

    Args:
        components: The objects of the run; the loaders return the part of this rank.
        settings: As for ``Run``.
        history: Rows and step losses, the same on every rank.
        position: Position from which the run starts.
        group: The ranks that train together.

    Raises:
        InputError: A loader does not split its batches over the ranks.
        TrainingError: The ranks have different models.

    Warns:
        FlambeauWarning: Norm layers use the batch statistics of each rank.
    """

    def __init__(
        self,
        components: Components,
        settings: RunSettings,
        history: History,
        position: Position,
        group: ProcessGroup,
    ) -> None:
        self.group = group
        self._own_interrupt = Interrupt()
        self._epoch_ended = False
        self._raised_by_all = False
        self._lr_scale = Batch({}, weight=1.0)
        self._exchanged: int | None = None  # the step before which the ranks last met
        self._gathered: tuple[int, list[Any]] | None = None
        _check_loader(components, group)
        trained = trained_module(components.model, components.task)
        _broadcast_model(trained, group)
        if group.is_main:
            _warn_about_batch_statistics(components.model, settings)
        super().__init__(components, settings, history, position)
        if self.update.needs_closure:
            kinds = ", ".join(type(each).__name__ for each in self.optimizers.values())
            raise InputError(
                f"{kinds} computes the loss several times in a step, which is not supported "
                "with several processes. Train in one process, or use another optimizer."
            )
        self.ddp_step = DDPStep(group, components.model, trained)
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
            group=group,
        )
        self.is_main = group.is_main
        for callback in settings.callbacks:
            if isinstance(callback, RankStates):
                callback.bind(self)
        self.shares_evaluation = (
            components.valid is not None and loader_world_size(components.valid) > 1
        )

    @contextmanager
    def propagate_errors(self) -> Generator[None]:
        try:
            yield
        except BaseException as error:
            if self._raised_by_all:
                raise
            explained = self.group.translate_error(error)
            self.group.leave(error if explained is error else None)
            if explained is error:
                raise
            raise explained from error
        finally:
            self.ddp_step.end()

    def start_phase(self) -> None:
        super().start_phase()
        self.ddp_step.start()

    def set_interrupt(self, interrupt: Interrupt) -> None:
        # ``self.interrupt`` never changes here: all ranks stop at the same step, see ``_exchange``.
        self._own_interrupt = interrupt

    def should_stop(self) -> bool:
        gathered = self.group.all_gather((self.state.stop_reason, self._own_interrupt.pending))
        self._raise_if_interrupted(any(pending for _, pending in gathered))
        self.state.stop_reason = next(
            (reason for reason, _ in gathered if reason is not None), None
        )
        return self.state.stop_reason is not None

    def broadcast_scores(self, scores: Mapping[str, float]) -> Mapping[str, float]:
        return self.group.broadcast(scores)

    def gather(self, value: T) -> list[T]:
        return self.group.all_gather(value)

    def carries(self) -> list[Any]:
        """Return the carried state of each rank, on the CPU.

        Usually rank 0 alone asks for it, after a step. The other ranks answer when they come to the
        exchange before their next step; in other places they cannot, and the list has one state.
        """
        own, step = self.state.context.carry, self.state.position.step
        if own is None:
            return [None] * self.group.world_size
        if self._gathered is not None and self._gathered[0] == step:
            return self._gathered[1]
        if self.state.exception is not None or self._exchanged != step - 1:
            return [own]
        self.group.sum_over_ranks([0.0] * _EXCHANGED + [1.0])
        return self._gather_carries()

    def _gather_carries(self) -> list[Any]:
        carries = self.group.all_gather(to_cpu(self.state.context.carry))
        self._gathered = self.state.position.step, carries
        return carries

    # The step

    def steps(self, grouped: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        self._epoch_ended = False
        for micro_batches in grouped:
            local = [batch for batch in micro_batches if len(batch)]
            self._exchange(local)
            if self._epoch_ended:
                return
            self._seed_step()
            yield local

    def end_steps(self) -> None:
        if not self._epoch_ended:
            self._exchange((), is_done=True)
        self._exchanged = None
        if keeps_carry(self):
            self._gather_carries()
        for buffer in self.components.model.buffers():
            _broadcast(buffer, self.group)

    def set_values(self, micro_batches: Sequence[Batch]) -> None:
        super().set_values((self._lr_scale,))

    def _exchange(self, local: Sequence[Batch], *, is_done: bool = False) -> None:
        """Sum weights and stop requests over the ranks, before each step and after the last."""
        weight = known_weight(local, self.components.task)
        counts = [1.0 if batch.weight is None else batch.weight for batch in local]
        scaled = sum(b.lr_scale * count for b, count in zip(local, counts, strict=True))
        stops = self.state.stop_reason is not None
        own = (
            weight or 0.0,
            weight is None,
            scaled,
            sum(counts),
            stops,
            self._own_interrupt.pending,
        )
        values = [*map(float, own), float(is_done), float(not local)]
        while (sums := self.group.sum_over_ranks([*values, 0.0]))[_EXCHANGED]:
            self._gather_carries()  # a rank saves its state
        total, unknown, scaled, counted, stopping, interrupted, done, empty = sums[:_EXCHANGED]
        self._raise_if_interrupted(bool(interrupted))
        self._epoch_ended = bool(stopping) or done == self.group.world_size
        if self._epoch_ended:
            return
        if done:
            raise self._raised_everywhere(
                TrainingError(
                    f"{int(done)} of the {self.group.world_size} ranks have no batches left, but "
                    "the others do: their train loaders have different lengths. Give every rank "
                    "the same number of batches (as DistributedSampler does), or pass the data "
                    "sets instead of loaders."
                )
            )
        if empty == self.group.world_size and self.options.train_step is train_step:
            from flambeau.training.no_target import step_without_samples

            raise self._raised_everywhere(step_without_samples(self.state.position.step))
        if empty and self.options.train_step is not train_step:
            raise self._raised_everywhere(
                TrainingError(
                    f"The batch of step {self.state.position.step} has fewer samples than there "
                    f"are ranks ({self.group.world_size}), and a custom train_step cannot be "
                    "called without samples. Choose a batch_size with a larger last batch."
                )
            )
        self._exchanged = self.state.position.step
        self.ddp_step.weight = None if unknown else total
        self.ddp_step.own_weight = weight or 0.0
        self._lr_scale = Batch({}, weight=1.0, lr_scale=scaled / counted if counted else 1.0)

    def _raise_if_interrupted(self, interrupted: bool) -> None:
        if interrupted:
            self._gather_carries()
            raise self._raised_everywhere(KeyboardInterrupt())

    def _raised_everywhere(self, error: BaseException) -> BaseException:
        """Return the error, marked as one that every rank raises at the same point."""
        self._raised_by_all = True
        return error

    def _seed_step(self) -> None:
        """Seed the generators of other ranks than 0, so that dropout differs between ranks."""
        rank = self.group.rank
        if rank:
            number = keyed.key(self.state.seed, "process", rank, self.state.position.step)
            seed_globals(number)
            if self.state.device.type == "cuda":
                torch.cuda.manual_seed(number)

    def _averaged_user_step(
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
    ) -> StepResult:
        result = self._user_step(model, micro_batches, task, step)
        return self.step.mean(checked_result(result, micro_batches))

    def build_nonfinite_error(self, record: StepRecord, source: NonFiniteSource) -> NonFiniteError:
        """Return the error of the rank that found the source; the result is equal on all ranks."""
        gathered = self.group.all_gather(
            (source.kind, str(super().build_nonfinite_error(record, source)))
        )
        found = [rank for rank, (kind, _) in enumerate(gathered) if kind != "unknown"]
        rank = found[0] if found else self.group.rank
        error = NonFiniteError(f"On rank {rank}: {gathered[rank][1]}")
        self._raised_everywhere(error)
        return error


def _check_loader(components: Components, group: ProcessGroup) -> None:
    found = loader_world_size(components.train)
    if found != group.world_size:
        raise InputError(
            f"{type(components.train).__name__} splits its batches over {found} ranks, but the run "
            f"has {group.world_size}, so samples would be used several times per epoch. Make "
            "the loader return the part of each batch for LoaderOptions.rank, and set its "
            "attribute world_size to LoaderOptions.world_size."
        )


def _broadcast_model(model: nn.Module, group: ProcessGroup) -> None:
    """Copy parameters and buffers of rank 0 to every rank."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}
    for rank, theirs in enumerate(group.all_gather(shapes)):
        if theirs != shapes:
            name = next(n for n in [*shapes, *theirs] if shapes.get(n) != theirs.get(n))
            raise TrainingError(
                f"Rank {group.rank} has a different model than rank {rank}: {name!r} is "
                f"{shapes.get(name)} on rank {group.rank} and {theirs.get(name)} on rank {rank}. "
                "Build the same model on every rank; initial weights may differ, because the "
                "weights of rank 0 are used."
            )
    for value in tensors.values():
        _broadcast(value, group)


@torch.no_grad()
def _broadcast(value: Tensor, group: ProcessGroup) -> None:
    """Copy the value of rank 0 to every rank."""
    flat = value.detach().contiguous()
    _dist.broadcast(flat, 0)
    if not group.is_main:
        value.copy_(flat)


def _warn_about_batch_statistics(model: nn.Module, settings: RunSettings) -> None:
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    layers = [
        name
        for name, module in modules
        if has_running_statistics(module) and not isinstance(module, nn.SyncBatchNorm)
    ]
    if layers and any(phase.bn in ("auto", "train") for phase in settings.phases):
        warnings.warn(
            f"[statistics-per-process] {len(layers)} norm layers ({layers[0]!r}, …) normalise with "
            "the samples of their own rank, so the steps differ from steps in one process; "
            "evaluation uses the running statistics of rank 0. On GPUs convert the model first, "
            "torch.nn.SyncBatchNorm.convert_sync_batchnorm(model); otherwise use a large batch on "
            "each rank, or layers without batch statistics (GroupNorm).",
            FlambeauWarning,
            stacklevel=4,
        )
