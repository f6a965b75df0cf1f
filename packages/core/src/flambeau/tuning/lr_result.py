"""``LearningRate``: the result of the learning-rate finder, which can be printed and plotted."""

# matplotlib does not type its **kwargs, so pyright reports every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flambeau.plotting import COLOURS, GREY, Path, axes_row, new_figure, save_figure, style_axes
from flambeau.tuning.lr_curve import Level, Sweep
from flambeau.tuning.lr_race import ShortRun, losses_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LearningRate:
    """A measured peak learning rate, or the reason why none was found.

    Attributes:
        value: The learning rate; None if none was found.
        low: The lowest rate that is not significantly worse; None if none was found.
        high: The highest rate that is not significantly worse; None if none was found.
        reason: Why no rate was found; empty if one was.
        level: The initial loss.
        sweep: The sweep over six decades.
        runs: The short runs, in order.
        steps: Optimizer steps used.
        seconds: Time used.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str
    level: Level
    sweep: Sweep
    runs: tuple[ShortRun, ...]
    steps: int
    seconds: float

    def __str__(self) -> str:
        cost = f"{self.steps} steps, {self.seconds:.1f} s"
        if self.value is None:
            return f"No learning rate: {self.reason} ({cost})."
        return f"Learning rate {self.value:g}: {self.summary()} ({cost})."

    def summary(self) -> str:
        """Return how the rate was found, or why none was found."""
        if self.value is None:
            return self.reason
        losses = losses_of(self.runs)
        return (
            f"{len(self.runs)} runs of {self.runs[0].length} steps at {len(losses)} learning rates "
            f"reduced the loss from {self.level.loss:.4g} to {min(losses.values()):.4g} at best; "
            f"rates from {self.low:g} to {self.high:g} are equally good within the noise"
        )

    def plot(self, path: Path | None = None) -> Figure:
        """Plot loss against learning rate: sweep, final losses of short runs, chosen rate.

        Args:
            path: File for the figure (.png, .pdf, .svg); None writes no file.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        figure = new_figure(5.4, 3.6)
        (axes,) = axes_row(figure, 1)
        rates, n = self.sweep.rates[: self.sweep.finite], self.sweep.finite
        axes.plot(rates, self.sweep.losses[:n], ".", color=GREY, alpha=0.35, markersize=3)
        axes.plot(rates, self.sweep.smoothed(), color=GREY, linewidth=1.3, label="sweep")
        whole = sorted((run.rate, run.loss) for run in self.runs if math.isfinite(run.loss))
        if whole:
            label = f"end of a run of {self.runs[0].length} steps"
            axes.plot(*zip(*whole, strict=True), "o", color=COLOURS[0], markersize=5, label=label)
        if self.value is not None and self.low is not None and self.high is not None:
            axes.axvspan(self.low, self.high, color=COLOURS[2], alpha=0.15, linewidth=0)
            axes.axvline(self.value, color=COLOURS[2], linewidth=1.4, label=f"lr {self.value:g}")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        self._limit(axes, [loss for _, loss in whole])
        style_axes(axes)
        axes.legend(frameon=False, fontsize=9)
        axes.set_title(
            "no learning rate found" if self.value is None else f"lr {self.value:g}",
            fontsize=11,
            loc="left",
        )
        return save_figure(figure, path)

    def _limit(self, axes: Axes, ends: list[float]) -> None:
        """Limit the y axis, since losses far above the initial one would compress the curves."""
        if math.isnan(self.level.loss):
            return
        top, low = self.level.loss, min([*ends, *self.sweep.smoothed()])
        room = max(top - low, 1e-3 * abs(top), 1e-12)
        axes.set_ylim(low - 0.1 * room, top + 0.6 * room)
