"""``NoiseScale``: the gradient noise scale, from the micro-batches of a step with accumulation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flambeau.inspect.watch.layer_statistics import norm_of
from flambeau.inspect.watch.step_hook import copied_as_nothing


class NoiseScale:
    """Compares the squared norm of the gradient of one micro-batch with that of the whole step.

    With accumulation the gradients of the first micro-batch are in the parameters when the second
    pass through the model starts. Their squared norm is larger than that of the mean over all
    micro-batches, by the noise that averaging removes. The simple noise scale ``tr(Σ) / |G|²`` is
    about the number of micro-batches beyond which a larger batch hardly helps.

    Without accumulation there is no second gradient to compare with, so nothing is recorded.

    Args:
        n_ranks: Number of processes over which the gradients of a step are averaged. The gradients
            of a micro-batch are those of this process until then.

    Source:
        McCandlish et al., "An Empirical Model of Large-Batch Training" (arXiv 1812.06162),
        appendix A.1. Here the unit of the batch size is a micro-batch.
    """

    def __init__(self, n_ranks: int = 1) -> None:
        self._n_ranks = n_ranks
        self._passes = 0
        self._first: Tensor | None = None
        self._total: Tensor | None = None
        self._handles: list[RemovableHandle] = []
        self._accumulated: dict[nn.Parameter, Tensor] | None = None

    def start(self, parameters: Iterable[nn.Parameter], *, changed_later: bool = False) -> None:
        """Start a step.

        Args:
            parameters: The parameters.
            changed_later: Whether unknown code may change the gradients after the backward passes,
                as a loop that clips them or divides them by the scale of the loss. Then they are
                taken at the end of each backward pass.
        """
        self.release()
        self._passes, self._first, self._total = 0, None, None
        if changed_later:
            self._accumulated = {}
            take = copied_as_nothing(self._take)
            self._handles = [
                cast("Any", p).register_post_accumulate_grad_hook(take)
                for p in parameters
                if p.requires_grad
            ]

    def release(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._accumulated = [], None

    def _take(self, parameter: Tensor) -> None:
        if self._accumulated is None:
            return
        with torch.no_grad():
            square = _square([cast("nn.Parameter", parameter)])
        if square is not None:
            self._accumulated[cast("nn.Parameter", parameter)] = square

    def _now(self, parameters: Iterable[nn.Parameter]) -> Tensor | None:
        if self._accumulated is None:
            return _square(parameters)
        return _sum(list(self._accumulated.values()))

    def pass_started(self, parameters: Iterable[nn.Parameter]) -> None:
        """Count a pass through the model; before the second one, take the gradients so far."""
        self._passes += 1
        if self._passes == 2:
            self._first = self._now(parameters)

    def gradients_ready(
        self, parameters: Iterable[nn.Parameter], factor: float | Tensor = 1.0
    ) -> None:
        """Take the gradients of the whole step.

        Args:
            parameters: The parameters.
            factor: By what the gradients were multiplied since the backward passes.
        """
        if self._first is not None:
            self._first = self._first * factor * factor
            self._total = self._now(parameters)

    def end(self) -> Tensor | None:
        """Return estimates of ``|G|²`` and ``tr(Σ)``, float32 ``(2,)``; None without accumulation.

        The mean over steps of each, not of their ratio, gives the noise scale. The gradients of a
        step are those of the mean loss over all micro-batches.
        """
        self.release()
        if self._first is None or self._total is None:
            return None
        n = self._passes * self._n_ranks  # micro-batches of the step, on all ranks
        small, big = self._first * self._passes**2, self._total
        return torch.stack([(n * big - small) / (n - 1), (small - big) / (1 - 1 / n)])


def noise_scale(estimates: Sequence[tuple[float, float]]) -> float | None:
    """Return the noise scale in micro-batches, from the estimates of several steps.

    None if there are none, if noise hides the gradient (the estimate of ``|G|²`` is not positive),
    or if the gradients of the micro-batches are so similar that the estimate of ``tr(Σ)`` is
    negative.
    """
    square = sum(each for each, _ in estimates)
    trace = sum(each for _, each in estimates)
    return trace / square if square > 0 and trace >= 0 else None


def _square(parameters: Iterable[nn.Parameter]) -> Tensor | None:
    norms = [
        norm_of(p.grad).square()
        for p in parameters
        if p.grad is not None and p.grad.layout is torch.strided
    ]
    return _sum(norms)


def _sum(values: Sequence[Tensor]) -> Tensor | None:
    return torch.stack([each.to(values[0].device) for each in values]).sum() if values else None
