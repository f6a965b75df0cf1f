"""One optimizer step that several processes compute together: each its share of the samples.

``DistributedDataParallel`` adds up the gradients while the backward pass still runs. It wraps a
small module of its own, from a batch to its summed loss, so that the model stays what it is: no
wrapper to see, no "module." in the names of its tensors, and a task may use any part of it.
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
from flambeau.task.numerics import as_real
from flambeau.task.task import StepContext, Task
from flambeau.torch_internals import ddp_without_buffer_copies, scale_
from flambeau.training.optim.clip import gradients_of
from flambeau.training.ranks.ranked_step import RankedStep
from flambeau.training.state import StepResult
from flambeau.training.step import Step, known_weight

# torch exports these without complete types.
_dist = cast("Any", dist)


class DDPStep:
    """The default ``train_step`` over several ranks: the same step as one process would make.

    Args:
        group: The ranks that share it.
        model: The model as it is trained.

    Attributes:
        weight: Weight of the coming step over all ranks, None where only the loss knows it.
        own_weight: This rank's part of it.
    """

    def __init__(self, group: ProcessGroup, model: nn.Module) -> None:
        self._group = group
        self._model = model
        self._loss_of = _LossOfBatch(model)
        self._parallel: DistributedDataParallel | None = None
        self._learning: list[nn.Parameter] = []
        self._finds_unused: bool | None = None
        self.weight: float | None = None
        self.own_weight = 0.0

    def start(self) -> None:
        """Takes the parameters that learn as they are now; at the start of a phase."""
        self._parallel = None
        self._learning = [p for p in self._model.parameters() if p.requires_grad]
        self._loss_of.used = self._learning
        # The first step finds out, unless the model says so.
        self._finds_unused = True if getattr(self._model, "find_unused_parameters", False) else None

    def end(self) -> None:
        """Lets go of the model: its gradients are its own again."""
        self._parallel = None

    def __call__(
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
    ) -> StepResult:
        """Make one step and return the result over all ranks, the same on each.

        Raises:
            TrainingError: A batch has another weight than announced.
        """
        ranked = cast("RankedStep", step)
        weight = self._weight_of(micro_batches, task)
        world_size = self._group.world_size
        # The gradients are averaged over the processes, but the step is a sum.
        divisor = 1.0 if weight is None else weight / world_size
        sums: list[Tensor] = []
        weights: list[Tensor] = []
        together: Tensor | None = None
        work: Any = None
        forward = self._prepared()
        for index, batch in enumerate(micro_batches or (None,)):
            is_last = index + 1 >= len(micro_batches)
            with self._alone() if not is_last else nullcontext():
                with step.autocast():
                    loss_sum, part = forward(task, batch, step.context)
                sums.append(loss_sum.detach())
                weights.append(torch.as_tensor(part, device=loss_sum.device).detach())
                if is_last:
                    # Sent before the backward pass, so that the two overlap.
                    together = _packed(sums, None if weight is not None else weights)
                    work = _dist.all_reduce(together, async_op=True)
                step.backward(loss_sum, divisor)
        self._finish_gradients(ranked)
        work.wait()
        total: float | Tensor
        loss_sum, *counted = cast(Tensor, together).unbind()
        if weight is None:
            total = counted[0]
            gradients = gradients_of(model.parameters())
            scale_(gradients, world_size / total)
        else:
            total = weight
        loss = loss_sum / total
        ranked.is_reduced = True
        step.update(loss)
        return StepResult(loss, total)

    def _prepared(self) -> nn.Module:
        """What computes the loss of a micro-batch: without DDP in the first step of a phase."""
        if self._finds_unused is None:
            return self._loss_of
        if self._parallel is None:
            self._parallel = DistributedDataParallel(
                self._loss_of,
                find_unused_parameters=self._finds_unused,
                gradient_as_bucket_view=True,
                # Evaluation takes the buffers of process 0; see RankedRun.end_steps.
                **ddp_without_buffer_copies(),
            )
        return self._parallel

    def _alone(self) -> AbstractContextManager[None]:
        """Around a backward pass whose gradients are not sent yet."""
        return nullcontext() if self._parallel is None else self._parallel.no_sync()

    def _finish_gradients(self, step: RankedStep) -> None:
        if self._parallel is None:
            # DDP has to know beforehand whether some parameters may go unused: looking for them
            # costs a pass over the graph each step, and not looking would wait for them for ever.
            self._finds_unused = not step.average(self._learning)
            self._loss_of.used = [p for p in self._learning if p.grad is not None]
        elif not self._finds_unused and any(p.grad is None for p in self._learning):
            missing = next(n for n, p in self._model.named_parameters() if _lacks_gradient(p))
            raise TrainingError(
                f"{missing!r} got no gradient in step {step.context.step}, as it did in the "
                "first step of the phase, so the processes wait for it in vain. Where a model does "
                "not use all of its parameters in every step, set its attribute "
                "find_unused_parameters = True."
            )

    def _weight_of(self, micro_batches: Sequence[Batch], task: Task) -> float | None:
        own = known_weight(micro_batches, task)
        if self.weight is not None and own != self.own_weight:
            raise TrainingError(
                f"The loader's batches of this step count {self.own_weight}, but {own} after the "
                "transforms on the device, which the other processes do not know of. Let the "
                "transform set batch.weight to None, or the loader give the final weight."
            )
        return self.weight


class _LossOfBatch(nn.Module):
    """What is wrapped: the forward pass and the loss of one micro-batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.used: list[nn.Parameter] = []

    def forward(self, task: Task, batch: Batch | None, context: StepContext) -> Any:
        if batch is not None:
            outputs = task.forward(self.model, batch, context)
            return task.loss(outputs, batch)
        # This process has no sample in a last batch that is smaller than their number. Gradients
        # of 0 keep it in step with the others.
        parts = [parameter.flatten()[:1].sum().float() * 0 for parameter in self.used]
        nothing = torch.stack(parts).sum()
        return nothing, torch.zeros_like(nothing)


def _lacks_gradient(parameter: nn.Parameter) -> bool:
    return parameter.requires_grad and parameter.grad is None


def _packed(sums: Sequence[Tensor], weights: Sequence[Tensor] | None) -> Tensor:
    """One tensor to send, of one dtype everywhere: the sum, and the weight if it is not known."""
    parts = [as_real(torch.stack(list(sums)).sum())]
    if weights is not None:
        parts.append(as_real(torch.stack(list(weights)).sum()))
    return torch.stack(parts)
