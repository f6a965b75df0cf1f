"""``LearningRate``: what the finder has found, to read, to print and to plot."""

# matplotlib leaves the type of its **kwargs open, so every call would be "partially unknown".
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
    """A peak learning rate that was measured, or why none could be.

    Attributes:
        value: The rate, or None where there is no answer.
        low: The lowest that does as well, as far as the noise tells; None without an answer.
        high: The highest.
        reason: Why there is no answer; empty where there is one.
        level: The loss from which all started.
        sweep: The sweep over six decades that found the center.
        runs: The short runs around it, in the order made.
        steps: Optimizer steps it cost.
        seconds: Time it took.
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
        """Where the rate is from, in words; the reason where there is none."""
        if self.value is None:
            return self.reason
        losses = losses_of(self.runs)
        return (
            f"in {len(self.runs)} runs of {self.runs[0].length} steps at {len(losses)} rates the "
            f"loss came from {self.level.loss:.4g} to {min(losses.values()):.4g} at best; "
            f"{self.low:g} to {self.high:g} did as well, as far as the noise tells"
        )

    def plot(self, path: Path | None = None) -> Figure:
        """The loss over the learning rate: the sweep, what the short runs came to, and the rate.

        Args:
            path: Where to write the picture (.png, .pdf, .svg); None writes nothing.

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
            "no answer" if self.value is None else f"lr {self.value:g}", fontsize=11, loc="left"
        )
        return save_figure(figure, path)

    def _limit(self, axes: Axes, ends: list[float]) -> None:
        """What is far above the start would flatten the rest."""
        if math.isnan(self.level.loss):
            return
        top, low = self.level.loss, min([*ends, *self.sweep.smoothed()])
        room = max(top - low, 1e-3 * abs(top), 1e-12)
        axes.set_ylim(low - 0.1 * room, top + 0.6 * room)
