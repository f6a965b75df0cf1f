"""``BestWeights``: a copy of the weights that scored best, put back at the end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError, did_you_mean


class RestoresBest(Protocol):
    """A callback that wants the best epoch back at the end (early stopping)."""

    monitor: str
    mode: str
    restore_best: bool


class BestWeights:
    """Watches one column of the history.

    Args:
        monitor: The column ("valid_loss"), or None to watch nothing.
        mode: "min" or "max".

    Attributes:
        epoch: Whose weights are kept, as the history counts; None where that is not known.
    """

    def __init__(self, monitor: str | None, mode: str = "min") -> None:
        self.monitor, self.mode = monitor, mode
        self.epoch: int | None = None
        self._score = math.inf
        self._weights: dict[str, Tensor] = {}

    @property
    def found(self) -> bool:
        """Whether there is something to restore."""
        return bool(self._weights)

    def offer(
        self, model: nn.Module, scores: Mapping[str, float], tolerance: float | None = None
    ) -> None:
        """Keeps a copy if this score is the best so far; NaN never is.

        Args:
            model: Whose weights were scored.
            scores: By column; "epoch" is noted where it is there.
            tolerance: How much worse than the best a score may be and still be kept, being later;
                None keeps the first of equals.
        """
        if self.monitor is None:
            return
        if self.monitor not in scores:
            raise ArgumentError(
                f"The best epoch is chosen by {self.monitor!r}, which the history does not have. "
                f"{did_you_mean(self.monitor, scores)}"
            )
        score = scores[self.monitor] * (1 if self.mode == "min" else -1)
        if score < self._score or (tolerance is not None and score <= self._score + tolerance):
            self._score = min(score, self._score)
            self.epoch = int(scores["epoch"]) if "epoch" in scores else None
            self._weights = {name: v.detach().clone() for name, v in model.state_dict().items()}

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        """Writes the best weights into the model."""
        model.load_state_dict(self._weights)
        self._weights = {}

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"score": self._score, "weights": self._weights, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        self._score, self._weights = state["score"], dict(state["weights"])
        self.epoch = state.get("epoch")  # earlier releases did not write it
