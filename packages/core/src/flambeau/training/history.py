"""``History``: the losses, scores and values of a run as rows of plain numbers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flambeau.errors import ArgumentError, did_you_mean
from flambeau.task.metrics import Mode

if TYPE_CHECKING:
    from numpy.typing import NDArray

Number = float | int | str


MAX_STEP_LOSSES = 2**16
"""Number of entries of ``History.step_losses`` at which neighbouring entries are merged."""


class History:
    """One row per epoch, and the loss of every step.

    Attributes:
        rows: ``{"phase", "epoch", "step", "train_loss", "valid_loss", <metrics>, "lr",
            "seconds"}`` for each epoch; the names of metrics have the prefix "valid_".
        step_losses: Mean training loss of each optimizer step, read from the device once per epoch.
            In a run of 65,536 steps or more each entry is the mean over ``loss_interval``
            consecutive steps; values that are not finite are left out of it.
        loss_interval: Steps per entry of ``step_losses``: 1, or a power of two in a long run.
        modes: "min" if smaller values of a column are better, "max" if larger ones are; only for
            the columns for which the task of the last run defines it.
        first_row: Index of the first row of the last fit.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Number]] = []
        self.step_losses: array[float] = array("d")
        self.modes: dict[str, Mode] = {"train_loss": "min", "valid_loss": "min"}
        self.loss_interval = 1
        self.first_row = 0
        self._incomplete: array[float] = array("d")  # losses of steps that make no full entry yet

    def __repr__(self) -> str:
        if not self.rows:
            return "History(no epochs)"
        shown = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in self.rows[-1].items()
        )
        return f"History({len(self.rows)} epoch{'s' * (len(self.rows) > 1)}; last: {shown})"

    @property
    def n_steps(self) -> int:
        """Number of steps whose losses it has."""
        return len(self.step_losses) * self.loss_interval + len(self._incomplete)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in the order in which rows have them."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def column(self, name: str, *, last_fit: bool = False) -> list[float]:
        """Return the numbers of one column; rows without the column are skipped.

        A history without rows returns an empty list for every name.

        Args:
            name: The column.
            last_fit: Only the rows of the last fit, from ``first_row`` on.

        Raises:
            ArgumentError: No row has the column, or its values are text.
        """
        rows = self.rows[self.first_row :] if last_fit else self.rows
        values = [row[name] for row in rows if name in row]
        if rows and not values:
            raise ArgumentError(
                f"The history has no column {name!r}. {did_you_mean(name, self.names)}"
            )
        if any(isinstance(value, str) for value in values):
            raise ArgumentError(
                f"The column {name!r} of the history has text ({values[-1]!r:.40}). Read it from "
                f"the rows: [row[{name!r}] for row in history.rows]."
            )
        return [float(value) for value in values]

    def add(self, row: Mapping[str, Number]) -> None:
        """Append a row."""
        self.rows.append(dict(row))

    def add_step_losses(self, losses: Iterable[float]) -> None:
        """Append the losses of consecutive steps."""
        losses = list(losses)
        if self.loss_interval == 1 and len(self.step_losses) + len(losses) < MAX_STEP_LOSSES:
            self.step_losses.extend(losses)
            return
        for loss in losses:
            self._incomplete.append(loss)
            if len(self._incomplete) == self.loss_interval:
                self.step_losses.append(_finite_mean(self._incomplete))
                del self._incomplete[:]
                if len(self.step_losses) == MAX_STEP_LOSSES:
                    self._merge_neighbours()

    def _merge_neighbours(self) -> None:
        losses = self.step_losses
        self.step_losses = array(
            "d", map(_finite_mean, zip(losses[::2], losses[1::2], strict=True))
        )
        self.loss_interval *= 2

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the history for a checkpoint: JSON values and arrays."""
        return {
            "rows": [dict(row) for row in self.rows],
            "step_losses": _padded(self.step_losses),
            "n_step_losses": len(self.step_losses),
            "loss_interval": self.loss_interval,
            "first_row": self.first_row,
            "incomplete": _padded(self._incomplete),
            "n_incomplete": len(self._incomplete),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned."""
        self.rows[:] = state["rows"]
        self.step_losses = array("d", state["step_losses"][: state["n_step_losses"]])
        self.loss_interval = int(state["loss_interval"])
        self.first_row = int(state.get("first_row", 0))  # earlier releases did not write it
        self._incomplete = array("d", state["incomplete"][: state["n_incomplete"]])


def _padded(losses: array[float]) -> NDArray[np.float64]:
    """Return the losses followed by zeros, up to a multiple of 4,096.

    Padding limits the number of different sizes: safetensors keeps 6 KB in memory for each size of
    an array that it has written.
    """
    found = np.zeros(-(-len(losses) // 4096) * 4096)
    found[: len(losses)] = losses
    return found


def _finite_mean(losses: Sequence[float]) -> float:
    if len(losses) == 1:
        return losses[0]
    finite = [loss for loss in losses if math.isfinite(loss)]
    return math.fsum(finite) / len(finite) if finite else math.nan
