"""``RankedStep``: a step that averages the gradients over the ranks before the update."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from flambeau.distributed.processes import ProcessGroup
from flambeau.task.numerics import as_real, real_scalar
from flambeau.training.events import Dispatch
from flambeau.training.optim.precision import Precision
from flambeau.training.state import StepResult, TrainState
from flambeau.training.step import Step
from flambeau.training.update import Update

# torch exports these without complete types.
_dist = cast("Any", dist)


class RankedStep(Step):
    """The ``Step`` of one rank.

    Args:
        state: As for ``Step``.
        update: As for ``Step``.
        precision: As for ``Step``.
        dispatch: As for ``Step``.
        group: The ranks that compute the step together.

    Attributes:
        is_reduced: Whether the gradients are already averaged over the ranks (by DDP).
    """

    def __init__(
        self,
        state: TrainState,
        update: Update,
        precision: Precision,
        dispatch: Dispatch,
        *,
        group: ProcessGroup,
    ) -> None:
        super().__init__(state, update, precision, dispatch)
        self._group = group
        self.n_ranks = group.world_size
        self.is_reduced = False

    def update(self, loss: Tensor | None = None, name: str | None = None) -> None:
        if not self.is_reduced and (name is None or name in self.optimizers):
            chosen = self.optimizers if name is None else {name: self.optimizers[name]}
            groups = [group for optimizer in chosen.values() for group in optimizer.param_groups]
            self.average([p for group in groups for p in group["params"]])
            if loss is not None:
                loss = self.mean(StepResult(loss.detach(), 1.0)).loss
        self.is_reduced = False
        super().update(loss, name)

    def skip(self) -> StepResult:
        self.is_reduced = False
        return super().skip()

    def total_weight(self, weight: float | None) -> float | None:
        total, unknown = self._group.sum_over_ranks([weight or 0.0, float(weight is None)])
        return None if unknown else total / self._group.world_size

    def total_weight_on_device(self, weight: Tensor) -> Tensor:
        total = as_real(weight)
        _dist.all_reduce(total)
        return total / self._group.world_size

    def average(self, parameters: Iterable[nn.Parameter]) -> bool:
        """Replace the gradients of each rank by their mean over the ranks.

        A gradient that is missing on a rank counts as 0 there; a gradient that is missing on all
        ranks stays None.

        Returns:
            Whether every rank had every gradient.
        """
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        counts = self._group.sum_over_ranks([float(p.grad is not None) for p in learning])
        gradients: dict[torch.dtype, list[Tensor]] = {}
        for parameter, count in zip(learning, counts, strict=True):
            if count:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                elif parameter.grad.layout != torch.strided:
                    parameter.grad = parameter.grad.to_dense()
                gradients.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for same in gradients.values():
            flat = torch.cat([gradient.reshape(-1) for gradient in same])
            _dist.all_reduce(flat)
            flat /= self._group.world_size
            parts = torch.split(flat, [gradient.numel() for gradient in same])
            views = [part.view(g.shape) for part, g in zip(parts, same, strict=True)]
            for gradient, mean in zip(same, views, strict=True):
                gradient.copy_(mean)
        self.is_reduced = True
        return min(counts, default=0.0) == self._group.world_size

    def mean(self, result: StepResult) -> StepResult:
        """Return the mean of the results of all ranks, weighted by their weights."""
        weight = real_scalar(result.weight, result.loss.device)
        both = torch.stack([as_real(result.loss) * weight, weight])
        _dist.all_reduce(both)
        return StepResult(both[0] / both[1], both[1])
