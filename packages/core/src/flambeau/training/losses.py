"""``StepLosses``: the losses of the steps of an epoch, kept on the device until it ends.

In a longer epoch they are read after every 65,536 steps.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.errors import ArgumentError
from flambeau.task.numerics import real_scalar
from flambeau.training.state import StepResult

_CHUNK = 512  # so many 0-d tensors are packed into one: on a GPU each of them takes 512 bytes
_MOST_CHUNKS = 128  # in a longer epoch the losses are read before its end, to bound their memory


@dataclass(frozen=True)
class _Sums:
    """Sums over the steps of the epoch whose losses have already been read from the device.

    Attributes:
        loss: Sum of loss × weight over the steps that count in the mean.
        counted: Sum of the weights of these steps.
        weight: Sum of the weights of all steps.
        steps: Number of steps.
        empty: Number of steps whose weight is 0.
    """

    loss: float = 0.0
    counted: float = 0.0
    weight: float = 0.0
    steps: int = 0
    empty: int = 0


class StepLosses:
    """Collects the results of steps, without reading them from the device before the epoch ends.

    Adding a result takes 0.1 µs and launches no kernel.

    Args:
        add_to_history: Receives the losses of consecutive steps when they are read.
        skip_nonfinite: Exclude steps whose loss is not finite from the mean, because their update
            was skipped.
    """

    def __init__(
        self, add_to_history: Callable[[array[float]], None], *, skip_nonfinite: bool = False
    ) -> None:
        self._add_to_history = add_to_history
        self._skip_nonfinite = skip_nonfinite
        self._clear()

    def _clear(self) -> None:
        self._sums = _Sums()
        self._drop()

    def _drop(self) -> None:
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
            if len(self._packed_losses) == _MOST_CHUNKS:
                self._flush()

    def read(self) -> tuple[float, float, int, int]:
        """Return mean loss, weight, steps and steps of weight 0 of the epoch, and start the next.

        The losses are read from the device and added to the history. The weight includes the steps
        that are excluded from the mean.
        """
        self._flush()
        sums = self._sums
        self._clear()
        mean = sums.loss / sums.counted if sums.counted else math.nan
        return mean, sums.weight, sums.steps, sums.empty

    def read_sums(self) -> tuple[float, float]:
        """Return the sum of loss × weight and the sum of weights from which the mean follows.

        Like ``read``, it adds the losses to the history and starts the next epoch.
        """
        self._flush()
        sums = self._sums
        self._clear()
        return sums.loss, sums.counted

    def _flush(self) -> None:
        losses, weights = (part.cpu() for part in self._all())  # host read at the end of the epoch
        self._drop()
        values, counts = array("d", losses.numpy()), array("d", weights.numpy())
        counted = [
            (loss, weight)
            for loss, weight in zip(values, counts, strict=True)
            if weight and (math.isfinite(loss) or not self._skip_nonfinite)
        ]
        sums = self._sums
        self._sums = _Sums(
            sums.loss + math.fsum(loss * weight for loss, weight in counted),
            sums.counted + math.fsum(weight for _, weight in counted),
            sums.weight + math.fsum(counts),
            sums.steps + len(values),
            sums.empty + counts.count(0.0),
        )
        self._add_to_history(values)

    def state_dict(self) -> dict[str, Any]:
        """Return the steps of the unfinished epoch, for a checkpoint."""
        losses, weights = self._all()
        return {"losses": losses, "weights": weights, "sums": asdict(self._sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned."""
        self._clear()
        self._sums = _Sums(**state["sums"])
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
