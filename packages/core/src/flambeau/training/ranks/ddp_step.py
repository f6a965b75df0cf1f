"""One optimizer step that several processes compute together: each its share of the samples.

``DistributedDataParallel`` adds up the gradients while the backward pass still runs. It wraps a
small module of its own, from a batch to its summed loss, so that the model stays what it is: no
wrapper to see, no "module." in the names of its tensors, and a task may use any part of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flambeau.data.batch import Batch
from flambeau.distributed.processes import Processes
from flambeau.errors import TrainingError
from flambeau.task.metrics import as_real
from flambeau.task.task import StepContext, Task
from flambeau.training import foreach
from flambeau.training.optim.clip import gradients_of
from flambeau.training.state import StepResult, TrainState

# torch exports these without complete types.
_dist = cast("Any", dist)

# torch 2.15 renamed it, and warns of the old name.
_NEW_NAME = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
_NO_BUFFERS: Mapping[str, Any] = {
    "forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False
}


class DDPStep:
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
        self._loss_of = _LossOfBatch(model)
        self._parallel: DistributedDataParallel | None = None
        self._learning: list[nn.Parameter] = []
        self._finds_unused: bool | None = None
        self.weight: float | None = None
        self.own_weight = 0.0
        self.gradients_are_shared = False

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
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, state: TrainState
    ) -> StepResult:
        """One step; the result is that of all processes, the same on each.

        Raises:
            TrainingError: The model is not the run's, or a batch counts otherwise than announced.
        """
        if model is not self._model:
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
        forward = self._prepared()
        for index, batch in enumerate(micro_batches or (None,)):
            is_last = index + 1 >= len(micro_batches)
            with self._alone() if not is_last else nullcontext():
                with state.autocast():
                    loss_sum, part = forward(task, batch, state.context)
                sums.append(loss_sum.detach())
                weights.append(torch.as_tensor(part, device=loss_sum.device).detach())
                if is_last:
                    # Sent before the backward pass, so that the two overlap.
                    together = _packed(sums, None if weight is not None else weights)
                    work = _dist.all_reduce(together, async_op=True)
                state.backward(loss_sum, divisor)
        self._finish_gradients(state)
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

    def average(self, parameters: Iterable[nn.Parameter]) -> bool:
        """The mean of the processes' gradients into each one's.

        A gradient that some process lacks counts as 0 there; one that all lack stays away.

        Returns:
            Whether every process had every gradient.
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
            parts = torch.split(flat, [gradient.numel() for gradient in same])
            views = [part.view(g.shape) for part, g in zip(parts, same, strict=True)]
            foreach.copy_(same, views)
        self.gradients_are_shared = True
        return min(has, default=0.0) == self._processes.world_size

    def mean(self, result: StepResult) -> StepResult:
        """One result for the results of all processes, which are means over their own samples."""
        weight = torch.as_tensor(result.weight, device=result.loss.device)
        both = _packed([result.loss * weight], [weight])
        _dist.all_reduce(both)
        return StepResult(both[0] / both[1], both[1])

    def _prepared(self) -> nn.Module:
        """What computes the loss of a micro-batch: without DDP in the first step of a phase."""
        if self._finds_unused is None:
            return self._loss_of
        if self._parallel is None:
            self._parallel = DistributedDataParallel(
                self._loss_of,
                find_unused_parameters=self._finds_unused,
                gradient_as_bucket_view=True,
                # Evaluation takes the buffers of process 0; see DistributedRun.end_steps.
                **_NO_BUFFERS,
            )
        return self._parallel

    def _alone(self) -> AbstractContextManager[None]:
        """Around a backward pass whose gradients are not sent yet."""
        return nullcontext() if self._parallel is None else self._parallel.no_sync()

    def _finish_gradients(self, state: TrainState) -> None:
        if self._parallel is None:
            # DDP has to know beforehand whether some parameters may go unused: looking for them
            # costs a pass over the graph each step, and not looking would wait for them for ever.
            self._finds_unused = not self.average(self._learning)
            self._loss_of.used = [p for p in self._learning if p.grad is not None]
        elif not self._finds_unused and any(p.grad is None for p in self._learning):
            missing = next(n for n, p in self._model.named_parameters() if _lacks_gradient(p))
            raise TrainingError(
                f"{missing!r} got no gradient in step {state.position.step}, as it did in the "
                "first step of the phase, so the processes wait for it in vain. Where a model does "
                "not use all of its parameters in every step, set its attribute "
                "find_unused_parameters = True."
            )

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
    """One tensor to send, of one dtype everywhere: the sum, and the weight if it is not known."""
    parts = [as_real(torch.stack(list(sums)).sum())]
    if weights is not None:
        parts.append(as_real(torch.stack(list(weights)).sum()))
    return torch.stack(parts)
