"""``History``: the losses, scores and values of a run as rows of plain numbers."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

from flambeau.task.metrics import Mode

Number = float | int | str


class History:
    """One row per epoch, and the loss of every step.

    Attributes:
        rows: ``{"phase", "epoch", "step", "train_loss", "valid_loss", <metrics>, "lr",
            "seconds"}`` for each epoch; the names of metrics have the prefix "valid_".
        step_losses: Mean training loss of each optimizer step, read from the device once per epoch.
        modes: Whether smaller ("min") or larger ("max") values are better, for each column of
            which the last run's task knows it.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Number]] = []
        self.step_losses: array[float] = array("d")
        self.modes: dict[str, Mode] = {"train_loss": "min", "valid_loss": "min"}

    def __repr__(self) -> str:
        if not self.rows:
            return "History(no epochs)"
        shown = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in self.rows[-1].items()
        )
        return f"History({len(self.rows)} epoch{'s' * (len(self.rows) > 1)}; last: {shown})"

    def column(self, name: str) -> list[float]:
        """Return the numbers of one column; rows without the column are skipped."""
        return [float(row[name]) for row in self.rows if name in row]

    def add(self, row: Mapping[str, Number]) -> None:
        """Append a row."""
        self.rows.append(dict(row))
