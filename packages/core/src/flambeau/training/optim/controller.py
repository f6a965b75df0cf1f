"""Controllers: set named values from what happened so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from flambeau.errors import InputError, did_you_mean
from flambeau.training.history import History

Mode = Literal["min", "max"]

_SMALLER_IS_BETTER = ("error", "loss", "mae", "mse", "perplexity", "rmse")


@runtime_checkable
class Controller(Protocol):
    """Called after each evaluation; a pure function of its arguments, so it resumes by itself."""

    def update(self, history: History, progress: float) -> Mapping[str, float]:
        """New values by name; a name left out keeps its value.

        Args:
            history: All rows so far, the last evaluation included.
            progress: Share of the run that is done, 0..1.
        """
        ...


def mode_of(monitor: str, mode: Mode | None = None) -> Mode:
    """Whether a column of the history is good when small ("min") or when large ("max").

    Names with "loss", "error", "mae", "mse", "rmse" or "perplexity" in them are minimised, all
    others maximised.

    Args:
        monitor: The column.
        mode: Says so against the name.

    Raises:
        InputError: ``mode`` is neither.
    """
    if mode is None:
        return "min" if any(word in monitor.lower() for word in _SMALLER_IS_BETTER) else "max"
    if mode not in ("min", "max"):
        raise InputError(f'mode is "min", "max" or None (by the name), not {mode!r}.')
    return mode


def last_score(history: History, monitor: str) -> float:
    """The newest value of a column.

    Raises:
        InputError: The last row does not have it; the message names the columns there are.
    """
    row = history.rows[-1] if history.rows else {}
    value = row.get(monitor)
    if value is None or isinstance(value, str):
        numbers = [name for name, entry in row.items() if not isinstance(entry, str)]
        raise InputError(
            f"The history has no numbers {monitor!r} to watch. {did_you_mean(monitor, numbers)} "
            "Columns that begin with valid_ need a validation set."
        )
    return float(value)


@dataclass(frozen=True)
class ReduceOnPlateau:
    """Multiplies a value by ``factor`` when a score has not improved for a while.

    Give the phase a constant schedule: what a controller sets wins over one that changes.

    Attributes:
        monitor: Column of the history.
        factor: New value over old.
        patience: Evaluations without improvement that are let pass; the next one reduces.
        name: The value to set.
        threshold: Relative improvement that counts as one.
        cooldown: Evaluations after a reduction that are not counted.
        min_value: The value never goes below.
        mode: "min" or "max"; None goes by the name of ``monitor``.

    Source:
        ``torch.optim.lr_scheduler.ReduceLROnPlateau``, whose steps it repeats
        (``threshold_mode="rel"``).
    """

    monitor: str = "valid_loss"
    factor: float = 0.1
    patience: int = 3
    name: str = "lr"
    threshold: float = 1e-4
    cooldown: int = 0
    min_value: float = 0.0
    mode: Mode | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.factor < 1.0:
            raise InputError(f"factor must be between 0 and 1, not {self.factor}.")
        if self.patience < 0 or self.cooldown < 0:
            raise InputError(
                f"patience and cooldown are counts of evaluations, not {self.patience} and "
                f"{self.cooldown}."
            )
        mode_of(self.monitor, self.mode)

    def update(self, history: History, progress: float) -> dict[str, float]:
        """``{name: smaller value}`` when the last evaluation completes a plateau, else ``{}``.

        Raises:
            InputError: The history has no column ``monitor`` or ``name``.
        """
        last_score(history, self.monitor)
        if not self._reduces_now(history.column(self.monitor)):
            return {}
        old = last_score(history, self.name)
        new = max(old * self.factor, self.min_value)
        return {self.name: new} if new < old else {}

    def _reduces_now(self, scores: list[float]) -> bool:
        sign = 1.0 if mode_of(self.monitor, self.mode) == "min" else -1.0
        best, bad, cooldown, reduces = math.inf, 0, 0, False
        for score in scores:
            # Relative to the best, whatever its sign: torch's rule moves the bar the wrong way
            # for negative scores.
            bar = best - self.threshold * abs(best) if math.isfinite(best) else best
            if sign * score < bar:
                best, bad = sign * score, 0
            else:
                bad += 1
            if cooldown > 0:
                cooldown, bad = cooldown - 1, 0
            reduces = bad > self.patience
            if reduces:
                cooldown, bad = self.cooldown, 0
        return reduces
