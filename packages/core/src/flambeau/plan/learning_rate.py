"""``LearningRate``: what the finder has found, to read, to print and to plot."""

# matplotlib leaves the type of its **kwargs open, so every call would be "partially unknown".
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from flambeau.figures import COLOURS, GREY, Path, axes_of, plain_axes, saved, sized
from flambeau.plan.lr_curve import Sweep, level_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LearningRate:
    """A peak learning rate that was measured, or why none could be.

    Attributes:
        value: The rate, or None where there is no answer.
        low: The lowest of the repeats; None where there is no answer.
        high: The highest of them.
        reason: Why there is no answer; empty where there is one.
        curve: The sweeps, each with its rates and losses: first the coarse one, then the repeats.
        steps: Optimizer steps it cost.
        seconds: Time it took.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str
    curve: tuple[Sweep, ...]
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
        repeats = self.curve[1:]
        begins = median(sweep.smoothed()[0] for sweep in repeats)
        lowest = median(min(sweep.smoothed()) for sweep in repeats)
        return (
            f"in {len(repeats)} sweeps the loss fell from {begins:.4g} to {lowest:.4g}; taken one "
            f"by one they say {self.low:g} to {self.high:g}"
        )

    def plot(self, path: Path | None = None) -> Figure:
        """The loss over the learning rate: every sweep, smoothed, and the rate that was taken.

        Args:
            path: Where to write the picture (.png, .pdf, .svg); None writes nothing.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        figure = sized(5.4, 3.6)
        (axes,) = axes_of(figure, 1)
        for index, sweep in enumerate(self.curve):
            _draw(axes, sweep, index)
        if self.value is not None and self.low is not None and self.high is not None:
            axes.axvspan(self.low, self.high, color=COLOURS[2], alpha=0.15, linewidth=0)
            axes.axvline(self.value, color=COLOURS[2], linewidth=1.4, label=f"lr {self.value:g}")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss of a step")
        _limit(axes, self.curve)
        plain_axes(axes)
        axes.legend(frameon=False, fontsize=9)
        axes.set_title(
            "no answer" if self.value is None else f"lr {self.value:g}", fontsize=11, loc="left"
        )
        return saved(figure, path)


def _draw(axes: Axes, sweep: Sweep, index: int) -> None:
    rates, n = sweep.rates[: sweep.finite], sweep.finite
    colour = GREY if index == 0 else COLOURS[0]
    label = {0: "first sweep", 1: "repeats"}.get(index)
    axes.plot(rates, sweep.losses[:n], ".", color=colour, alpha=0.35, markersize=3)
    axes.plot(rates, sweep.smoothed(), color=colour, linewidth=1.3, label=label)


def _limit(axes: Axes, curve: tuple[Sweep, ...]) -> None:
    """What is far above the start would flatten the rest."""
    finite = [
        (level_of(s.losses[: s.finite]).loss, min(s.smoothed())) for s in curve if s.finite > 3
    ]
    if not finite:
        return
    top, low = max(start for start, _ in finite), min(least for _, least in finite)
    room = max(top - low, 1e-3 * abs(top), 1e-12)
    axes.set_ylim(low - 0.1 * room, top + 0.6 * room)
