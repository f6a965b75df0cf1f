"""``StepLosses``: the losses of the steps of an epoch, kept on the device until it ends."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.errors import ArgumentError
from flambeau.task.numerics import real_scalar
from flambeau.training.state import StepResult

_CHUNK = 512  # so many 0-d tensors are packed into one: on a GPU each of them takes 512 bytes


class StepLosses:
    """A collection of step results that are not read from the device until the epoch ends.

    Adding a result takes 0.1 µs and launches no kernel.

    Args:
        skip_nonfinite: Exclude steps whose loss is not finite from the mean, because their update
            was skipped.
    """

    def __init__(self, *, skip_nonfinite: bool = False) -> None:
        self._skip_nonfinite = skip_nonfinite
        self._clear()

    def _clear(self) -> None:
        self._results: list[StepResult] = []
        self._packed_losses: list[Tensor] = []
        self._packed_weights: list[Tensor] = []

    def add(self, result: StepResult) -> None:
        """Add the result of a step, on the device.

        Raises:
            ArgumentError: A user's training step returned something else.
        """
        if not isinstance(cast("object", result), StepResult):
            raise ArgumentError(
                f"train_step returned {result!r:.60}, but it must return a StepResult: "
                "StepResult(loss.detach(), batch.weight)."
            )
        self._results.append(result)
        if len(self._results) == _CHUNK:
            self._pack()

    def read(self) -> tuple[float, float, array[float]]:
        """Return mean loss and weight of the epoch, and the loss of each step; then clear them.

        The losses are read from the device. The weight includes steps that the mean excludes.
        """
        losses, weights = (part.cpu() for part in self._all())  # host read at the end of the epoch
        self._clear()
        values, counts = array("d", losses.numpy()), array("d", weights.numpy())
        counted = [
            (loss, weight)
            for loss, weight in zip(values, counts, strict=True)
            if math.isfinite(loss) or not self._skip_nonfinite
        ]
        total = math.fsum(weight for _, weight in counted)
        mean = math.fsum(loss * weight for loss, weight in counted)
        return (mean / total if total else math.nan), math.fsum(counts), values

    def state_dict(self) -> dict[str, Tensor]:
        """Return the steps of the unfinished epoch, for a checkpoint."""
        losses, weights = self._all()
        return {"losses": losses, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned."""
        self._clear()
        if len(state["losses"]):
            self._packed_losses.append(state["losses"])
            self._packed_weights.append(state["weights"])

    def _pack(self) -> None:
        if not self._results:
            return
        losses = torch.stack([result.loss.detach() for result in self._results]).double()
        known = [result.weight for result in self._results]
        if any(isinstance(weight, Tensor) for weight in known):
            columns = [real_scalar(weight, losses.device) for weight in known]
            weights = torch.stack(columns).double()
        else:
            weights = torch.tensor(known, dtype=torch.float64)
        self._packed_losses.append(losses)
        self._packed_weights.append(weights)
        self._results.clear()

    def _all(self) -> tuple[Tensor, Tensor]:
        self._pack()
        if not self._packed_losses:
            return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
        device = self._packed_losses[-1].device
        return (
            torch.cat([part.to(device) for part in self._packed_losses]),
            torch.cat([part.to(device) for part in self._packed_weights]),
        )
