"""One optimizer step that several processes compute together: each its share of the samples.

``DistributedDataParallel`` adds up the gradients while the backward pass still runs. It wraps a
small module of its own, from a batch to its summed loss, so that the model stays what it is: no
wrapper to see, no "module." in the names of its tensors, and a task may use any part of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flambeau.data.batch import Batch
from flambeau.errors import TrainingError
from flambeau.processes import Processes
from flambeau.task.task import StepContext, Task
from flambeau.training import foreach
from flambeau.training.clip import gradients_of
from flambeau.training.state import StepResult, TrainState

# torch exports these without complete types.
_dist = cast("Any", dist)


class SharedStep:
    """``train_step`` over the processes of a run: the same step as one process would make.

    Args:
        processes: Who shares it.
        model: The model as it is trained.
        asks: Whether each step adds up its weights itself, because the run has not done it: where
            a ``train_step`` of the user's own calls the default one.

    Attributes:
        weight: Weight of the coming step over all processes, None where only the loss knows it.
        own_weight: This process's part of it.
        gradients_are_shared: Whether the gradients at hand are those of all processes.
    """

    def __init__(self, processes: Processes, model: nn.Module, *, asks: bool) -> None:
        self._processes = processes
        self._model = model
        self._asks = asks
        self._parallel: DistributedDataParallel | None = None
        self._is_first = True
        self.weight: float | None = None
        self.own_weight = 0.0
        self.gradients_are_shared = False

    def start(self) -> None:
        """Takes the parameters that learn as they are now; at the start of a phase."""
        self._parallel = DistributedDataParallel(
            _LossOfBatch(self._model),
            # Evaluation takes those of process 0; see DistributedRun.end_steps.
            broadcast_buffers=False,
            # A parameter that no process used keeps no gradient, as in a run of one process.
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )
        self._is_first = True

    def end(self) -> None:
        """Lets go of the model: its gradients are its own again."""
        self._parallel = None

    def __call__(
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, state: TrainState
    ) -> StepResult:
        """One step; the result is that of all processes, the same on each.

        Raises:
            TrainingError: The model is not the run's, or a batch counts otherwise than announced.
        """
        if self._parallel is None or model is not self._model:
            raise TrainingError(
                f"In a run of several processes train_step computes the gradients of the "
                f"learner's own model, but it was called with another {type(model).__name__}. "
                "Compute that model's gradients in the train_step of your own."
            )
        weight = self._weight_of(micro_batches, task)
        world_size = self._processes.world_size
        # The gradients are averaged over the processes, but the step is a sum.
        divisor = 1.0 if weight is None else weight / world_size
        sums: list[Tensor] = []
        weights: list[Tensor] = []
        together: Tensor | None = None
        work: Any = None
        for index, batch in enumerate(micro_batches or (None,)):
            is_last = index + 1 >= len(micro_batches)
            with nullcontext() if is_last else self._parallel.no_sync():
                loss_sum, part = self._forward(task, batch, state)
                sums.append(loss_sum.detach())
                weights.append(torch.as_tensor(part, device=loss_sum.device).detach())
                if is_last:
                    # Sent before the backward pass, so that the two overlap.
                    together = _packed(sums, None if weight is not None else weights)
                    work = _dist.all_reduce(together, async_op=True)
                state.backward(loss_sum, divisor)
        work.wait()
        total: float | Tensor
        loss_sum, *counted = cast(Tensor, together).unbind()
        if weight is None:
            total = counted[0]
            gradients = gradients_of(model.parameters())
            foreach.scale_(gradients, world_size / total)
        else:
            total = weight
        loss = loss_sum / total
        self.gradients_are_shared = True
        state.update(loss)
        return StepResult(loss, total)

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """The mean of the processes' gradients into each one's, for a step of the user's own.

        A gradient that some process lacks counts as 0 there; one that all lack stays away.
        """
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        has = self._processes.add_up([float(p.grad is not None) for p in learning])
        gradients: dict[torch.dtype, list[Tensor]] = {}
        for parameter, count in zip(learning, has, strict=True):
            if count:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for same in gradients.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in same])
            _dist.all_reduce(flat)
            flat /= self._processes.world_size
            parts = flat.split([gradient.numel() for gradient in same])
            views = [part.view(g.shape) for part, g in zip(parts, same, strict=True)]
            foreach.copy_(same, views)
        self.gradients_are_shared = True

    def mean(self, result: StepResult) -> StepResult:
        """One result for the results of all processes, which are means over their own samples."""
        weight = torch.as_tensor(result.weight, device=result.loss.device)
        both = _packed([result.loss * weight], [weight])
        _dist.all_reduce(both)
        return StepResult(both[0] / both[1], both[1])

    def _forward(self, task: Task, batch: Batch | None, state: TrainState) -> Any:
        parallel = cast(nn.Module, self._parallel)
        if not self._is_first:
            with state.autocast():
                return parallel(task, batch, state.context)
        self._is_first = False
        with warnings.catch_warnings(), state.autocast():
            # That every parameter was used is what one hopes for.
            warnings.filterwarnings("ignore", "find_unused_parameters=True was specified")
            return parallel(task, batch, state.context)

    def _weight_of(self, micro_batches: Sequence[Batch], task: Task) -> float | None:
        own = known_weight(micro_batches, task)
        if self._asks:
            total, unknown = self._processes.add_up([own or 0.0, float(own is None)])
            return None if unknown else total
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

    def forward(self, task: Task, batch: Batch | None, context: StepContext) -> Any:
        if batch is not None:
            outputs = task.forward(self.model, batch, context)
            return task.loss(outputs, batch)
        # This process has no sample in a last batch that is smaller than their number. Gradients
        # of 0 keep it in step with the others.
        parts = [p.flatten()[:1].sum() * 0 for p in self.model.parameters() if p.requires_grad]
        nothing = torch.stack([part.float() for part in parts]).sum()
        return nothing, torch.zeros_like(nothing)


def known_weight(batches: Sequence[Batch], task: Task) -> float | None:
    """How much the batches count together, where that is known without the device."""
    total = 0.0
    for batch in batches:
        weight = task.host_weight(batch)
        if weight is None:
            return None
        total += weight
    return total


def _packed(sums: Sequence[Tensor], weights: Sequence[Tensor] | None) -> Tensor:
    """One tensor to send: the sum, and the weight where it is not known."""
    parts = [torch.stack(list(sums)).sum()]
    if weights is not None:
        parts.append(torch.stack(list(weights)).sum().to(parts[0].dtype))
    return torch.stack(parts)
