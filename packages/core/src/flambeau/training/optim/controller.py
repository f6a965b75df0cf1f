"""Controllers, which set named values after each evaluation, depending on the history."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from flambeau.checked_arguments import checked_count, checked_number
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.task.metrics import Mode
from flambeau.task.task import Task
from flambeau.training.history import History


@runtime_checkable
class Controller(Protocol):
    """An object that sets named values after each evaluation.

    Attributes are saved in checkpoints, so ``update`` may depend on them.
    """

    def update(self, history: History, progress: float) -> Mapping[str, float]:
        """Return new values by name; other values do not change.

        Args:
            history: All rows so far, including that of the last evaluation; those of the current
                fit start at ``history.first_row``.
            progress: Finished fraction of the run, 0 to 1.
        """
        ...


def checked_mode(mode: Mode | None) -> Mode | None:
    """Return ``mode`` after checking it.

    Raises:
        InputError: ``mode`` is neither "min" nor "max" nor None.
    """
    if mode not in ("min", "max", None):
        raise InputError(
            f'mode is {mode!r}; give "min", "max" or None (the direction of the metric).'
        )
    return mode


def checked_column(monitor: str) -> str:
    """Return the name of a column of the history after checking its type."""
    if not isinstance(monitor, str):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        raise ArgumentError(
            f'monitor is {monitor!r:.60}; give a column of the history, monitor="valid_loss".'
        )
    return monitor


def column_modes(task: Task) -> dict[str, Mode]:
    """Return "min" or "max" for each column of the history whose better direction is known.

    Raises:
        ArgumentError: ``score_modes`` of the task returns something else.
    """
    modes: dict[str, Mode] = {"train_loss": "min"}
    found = cast("object", task.score_modes())
    if not isinstance(found, Mapping):
        raise ArgumentError(
            f"{type(task).__name__}.score_modes() returned {found!r:.60}. Return a dict from names "
            'of scores to "min" or "max".'
        )
    for name, mode in cast("Mapping[str, Any]", found).items():
        if mode not in ("min", "max"):
            raise ArgumentError(
                f"{type(task).__name__}.score_modes() returned {mode!r:.40} for {name!r}. Return "
                '"min" if smaller values are better, "max" if larger values are, and leave out '
                "scores that are not compared."
            )
        modes[f"valid_{name}"] = mode
    return modes


def mode_of(monitor: str, modes: Mapping[str, Mode], mode: Mode | None = None) -> Mode:
    """Return "min" if smaller values of a column of the history are better, else "max".

    Args:
        monitor: The column.
        modes: The known directions of columns (``History.modes``).
        mode: "min" or "max" from the user, which takes precedence.

    Raises:
        ArgumentError: Neither ``modes`` nor ``mode`` says which values are better.
    """
    found = mode or modes.get(monitor)
    if found is not None:
        return found
    metric = monitor.removeprefix("valid_")
    raise ArgumentError(
        f"Scores are compared by {monitor!r}, but it is not known whether smaller or larger values "
        f"of it are better. {did_you_mean(monitor, modes)} If {monitor!r} is the right name, set "
        f"higher_is_better = True or False on the metric {metric!r} (an attribute of its class, as "
        f'in torchmetrics; for a function: metrics={{"{metric}": FunctionMetric(function, '
        "higher_is_better=False)}), or, for a score that the task computes itself, return its "
        "direction from Task.score_modes(). "
        'EarlyStopping and ReduceOnPlateau also take mode="min" or mode="max".'
    )


def last_score(history: History, monitor: str) -> float:
    """Return the last value of a column.

    Raises:
        InputError: The last row does not have the column; the message names its columns.
    """
    row = history.rows[-1] if history.rows else {}
    value = row.get(monitor)
    if value is None or isinstance(value, str):
        numbers = [name for name, entry in row.items() if not isinstance(entry, str)]
        raise InputError(
            f"The history has no column of numbers {monitor!r}. {did_you_mean(monitor, numbers)} "
            "Columns that start with valid_ need a validation set."
        )
    return float(value)


@dataclass(frozen=True)
class ReduceOnPlateau:
    """A controller that multiplies a value by ``factor`` when a score no longer improves.

    Use a constant schedule in the phase: the value of a controller overrides that of a schedule.
    Only the evaluations of the current fit count.

    Attributes:
        monitor: Column of the history.
        factor: Factor of each reduction, between 0 and 1.
        patience: Number of evaluations without improvement to allow; the next one reduces the
            value.
        name: Name of the value to set.
        threshold: Smallest relative improvement that counts.
        cooldown: Number of evaluations after a reduction that do not count towards ``patience``.
        min_value: Lower bound of the value.
        mode: "min" or "max"; None selects the direction of the metric in ``monitor``.

    Source:
        ``torch.optim.lr_scheduler.ReduceLROnPlateau``, with the same rule
        (``threshold_mode="rel"``) for positive scores.
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
        checked: dict[str, float] = {
            "factor": checked_number(self.factor, "factor", above=0, below=1),
            "patience": checked_count(self.patience, "patience", at_least=0, unit="evaluations"),
            "cooldown": checked_count(self.cooldown, "cooldown", at_least=0, unit="evaluations"),
            "threshold": checked_number(self.threshold, "threshold", at_least=0, below=1),
            "min_value": checked_number(self.min_value, "min_value"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        checked_column(self.monitor)
        checked_mode(self.mode)

    def update(self, history: History, progress: float) -> dict[str, float]:
        """Return ``{name: smaller value}`` if the last evaluation completes a plateau, else ``{}``.

        Raises:
            InputError: The history has no column ``monitor`` or ``name``.
            ArgumentError: It is not known which values of ``monitor`` are better.
        """
        last_score(history, self.monitor)
        mode = mode_of(self.monitor, history.modes, self.mode)
        if not self._reduces_now(history.column(self.monitor, last_fit=True), mode):
            return {}
        old = last_score(history, self.name)
        new = max(old * self.factor, self.min_value)
        return {self.name: new} if new < old else {}

    def _reduces_now(self, scores: list[float], mode: Mode) -> bool:
        sign = 1.0 if mode == "min" else -1.0
        best, bad, cooldown, reduces = math.inf, 0, 0, False
        for score in scores:
            # Relative to the absolute value of the best score: torch's rule moves the limit in the
            # wrong direction for negative scores.
            limit = best - self.threshold * abs(best) if math.isfinite(best) else best
            if sign * score < limit:
                best, bad = sign * score, 0
            else:
                bad += 1
            if cooldown > 0:
                cooldown, bad = cooldown - 1, 0
            reduces = bad > self.patience
            if reduces:
                cooldown, bad = self.cooldown, 0
        return reduces
