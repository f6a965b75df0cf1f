"""Compute one optimizer step with several ranks, each for its part of the samples.

``DistributedDataParallel`` averages the gradients while the backward pass still runs. It wraps a
small module that computes the summed loss of a batch, not the model. Therefore the model does not
change: its tensors have no prefix "module.", and a task may use any part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flambeau.data.batch import Batch
from flambeau.distributed.processes import ProcessGroup
from flambeau.errors import TrainingError
from flambeau.task.numerics import as_real, is_known_zero, real_scalar
from flambeau.task.task import StepContext, Task
from flambeau.torch_internals import ddp_without_buffer_copies
from flambeau.training.ranks.ranked_step import RankedStep
from flambeau.training.state import StepResult
from flambeau.training.step import Step, known_weight

# torch exports these without complete types.
_dist = cast("Any", dist)


class DDPStep:
    """The default ``train_step`` over several ranks: the same step as with one process.

    Args:
        group: The ranks that compute the step together.
        model: The model that is trained.
        trained: The model, together with the parameters of the task.

    Attributes:
        weight: Weight of the next step over all ranks; None if only ``task.loss`` can compute it.
        own_weight: Weight of the samples of this rank.
    """

    def __init__(self, group: ProcessGroup, model: nn.Module, trained: nn.Module) -> None:
        self._group = group
        self._model = model
        self._trained = trained
        self._loss_of = _LossOfBatch(model, trained)
        self._parallel: DistributedDataParallel | None = None
        self._learning: list[nn.Parameter] = []
        self._finds_unused: bool | None = None
        self.weight: float | None = None
        self.own_weight = 0.0

    def start(self) -> None:
        """Collect the trainable parameters; called at the start of a phase."""
        self._parallel = None
        self._learning = [p for p in self._trained.parameters() if p.requires_grad]
        self._loss_of.used = self._learning
        # Determined in the first step, unless the model declares it.
        self._finds_unused = True if getattr(self._model, "find_unused_parameters", False) else None

    def end(self) -> None:
        """Remove the DDP wrapper, so that gradients are no longer views into its buckets."""
        self._parallel = None

    def __call__(
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
    ) -> StepResult:
        """Make one step and return its result over all ranks, which is equal on all ranks.

        Raises:
            TrainingError: A batch does not have the weight that the loader gave it, or a parameter
                has no gradient in this step.
        """
        ranked = cast("RankedStep", step)
        if task.loss_factors:
            return self._with_several_losses(micro_batches, task, ranked)
        weight = self._weight_of(micro_batches, task)
        if weight == 0:
            return step.skip()
        world_size = self._group.world_size
        # DDP averages gradients over the ranks, but the step needs their sum.
        divisor = 1.0 if weight is None else weight / world_size
        sums: list[Tensor] = []
        weights: list[Tensor] = []
        totals: Tensor | None = None
        work: Any = None
        forward = self._prepared()
        for index, batch in enumerate(micro_batches or (None,)):
            is_last = index + 1 >= len(micro_batches)
            with self._without_sync() if not is_last else nullcontext():
                with step.autocast():
                    loss_sum, part = forward(task, batch, step.context)
                sums.append(loss_sum.detach())
                weights.append(real_scalar(part, loss_sum.device))
                if is_last:
                    # Sent before the backward pass, so that the two overlap.
                    totals = _packed(sums, None if weight is not None else weights)
                    work = _dist.all_reduce(totals, async_op=True)
                step.backward(loss_sum, divisor)
        self._finish_gradients(ranked)
        work.wait()
        total: float | Tensor
        divisor: float | Tensor
        loss_sum, *counted = cast(Tensor, totals).unbind()
        if weight is None:
            divisor = total = counted[0]
            if is_known_zero(total):
                return step.skip()
            if total.device.type != "cpu":
                divisor = step.divisor(total)
            step.scale_gradients(world_size / divisor)
        else:
            divisor = total = weight
        ranked.is_reduced = True
        step.update(loss_sum / divisor)
        return StepResult(loss_sum / total, total)

    def _with_several_losses(
        self, micro_batches: Sequence[Batch], task: Task, step: RankedStep
    ) -> StepResult:
        """Make the step of a task with several losses, each divided by its weight over all ranks.

        The weights are summed over the ranks before the first forward pass.
        """
        from flambeau.training.several_losses_step import (
            log_means,
            result_of,
            weights_of_batches,
        )

        own = weights_of_batches(micro_batches, task, step.device)
        weights = own.clone()
        _dist.all_reduce(weights)
        total = weights.sum()
        if is_known_zero(total):
            return step.skip()
        if total.device.type != "cpu":
            step.divisor(total)  # the update has no effect if it is 0
        # DDP averages gradients over the ranks, but the step needs their sum.
        self._loss_of.weights = weights / self._group.world_size
        sums = torch.zeros_like(weights)
        forward = self._prepared()
        for index, batch in enumerate(micro_batches or (None,)):
            is_last = index + 1 >= len(micro_batches)
            with self._without_sync() if not is_last else nullcontext():
                with step.autocast():
                    loss, part = forward(task, batch, step.context)
                step.backward(loss)
            sums = sums + part
        self._finish_gradients(step)
        log_means(task, sums, own)
        _dist.all_reduce(sums)
        step.is_reduced = True
        result, loss = result_of(task, sums, weights)
        step.update(loss)
        return result

    def _prepared(self) -> nn.Module:
        """Return the module that computes the loss; the first step of a phase does not use DDP."""
        if self._finds_unused is None:
            return self._loss_of
        if self._parallel is None:
            self._parallel = DistributedDataParallel(
                self._loss_of,
                find_unused_parameters=self._finds_unused,
                gradient_as_bucket_view=True,
                # Evaluation uses the buffers of rank 0; see RankedRun.end_steps.
                **ddp_without_buffer_copies(),
            )
        return self._parallel

    def _without_sync(self) -> AbstractContextManager[None]:
        """Return a context manager for a backward pass without communication."""
        return nullcontext() if self._parallel is None else self._parallel.no_sync()

    def _finish_gradients(self, step: RankedStep) -> None:
        if self._parallel is None:
            # DDP must know in advance whether parameters may be unused: the search for them takes a
            # pass over the graph in each step, but without it DDP would wait for them forever.
            self._finds_unused = not step.average(self._learning)
            self._loss_of.used = [p for p in self._learning if p.grad is not None]
        elif not self._finds_unused and any(p.grad is None for p in self._learning):
            missing = next(n for n, p in self._trained.named_parameters() if _lacks_gradient(p))
            raise TrainingError(
                f"{missing!r} has no gradient in step {step.context.step}, but had one in the "
                "first step of the phase, so DDP cannot average it. If the model does not use all "
                "parameters in every step, set its attribute find_unused_parameters = True."
            )

    def _weight_of(self, micro_batches: Sequence[Batch], task: Task) -> float | None:
        own = known_weight(micro_batches, task)
        if self.weight is not None and own != self.own_weight:
            raise TrainingError(
                f"The batches of this step have the weight {self.own_weight} in the loader, but "
                f"{own} after the transforms on the device; the other ranks already use the first "
                "value. Set batch.weight to None in the transform, or the final weight in the "
                "loader."
            )
        return self.weight


class _LossOfBatch(nn.Module):
    """The module that DDP wraps: forward pass and loss of one micro-batch."""

    def __init__(self, model: nn.Module, trained: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.trained = trained  # registers the parameters of the task
        self.used: list[nn.Parameter] = []
        self.weights: Tensor | None = None  # divisors of a task with several losses

    def forward(self, task: Task, batch: Batch | None, context: StepContext) -> Any:
        """Return the summed loss and its weight; of several losses, their mean and their sums."""
        if batch is not None:
            outputs = task.forward(self.model, batch, context)
            if task.loss_factors:
                return self._of_several(task, outputs, batch)
            return task.loss(outputs, batch)
        # The last batch has fewer samples than there are ranks, and none for this rank. It
        # contributes gradients of 0, because all ranks must communicate.
        parts = [parameter.flatten()[:1].sum().float() * 0 for parameter in self.used]
        nothing = torch.stack(parts).sum()
        return nothing, torch.zeros_like(nothing)

    def _of_several(self, task: Task, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        from flambeau.task.several_losses import checked_losses, divisors_of, weighted_sum
        from flambeau.training.several_losses_step import detached

        sums = [loss for loss, _ in checked_losses(task, outputs, batch).values()]
        divisors = divisors_of(cast("Tensor", self.weights))
        return weighted_sum(sums, task.loss_factors, divisors), detached(sums)


def _lacks_gradient(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.grad is None


def _packed(sums: Sequence[Tensor], weights: Sequence[Tensor] | None) -> Tensor:
    """Return one tensor to reduce over the ranks: the summed losses, and the weights if given."""
    parts = [as_real(torch.stack(list(sums)).sum())]
    if weights is not None:
        parts.append(as_real(torch.stack(list(weights)).sum()))
    return torch.stack(parts)
