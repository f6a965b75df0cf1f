"""``find_spikes``: steps whose loss is far above that of the steps before, and ``LossSpikes``."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from flambeau.errors import InputError
from flambeau.inspect.inspect_tables import html_table, text_rows
from flambeau.wording import count_of, format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

WINDOW, LEAST = 100, 20
"""Losses before a step with which its loss is compared: the last ones, and how few suffice."""

DEVIATIONS, LOG_DEVIATIONS = 7.0, 4.0
"""Standard deviations above the median from which on a loss, and its logarithm, are a spike."""

LEAST_DEVIATION = 0.05
"""Smallest standard deviation, relative to the median: a spike is at least 1.35 times as high."""

LEAST_LOSS = 1e-3
"""Medians below are as good as 0 and count as this, so that 1e-9 after losses of 0 is no spike."""

_GAP = 3  # steps with a usual loss between two spikes; of fewer, both are one
_HEADERS = ("step", "epoch", "loss", "usual", "steps", "samples")
_RIGHT = ("step", "epoch", "loss", "usual", "steps")
_SHOWN = 4  # samples in a row of the table


@dataclass(frozen=True)
class FoundSpike:
    """A spike in a sequence of losses.

    Attributes:
        index: Index of its first loss.
        last: Index of its last loss.
        usual: Median of the losses before it.
        deviations: How far the largest loss is above the median, in standard deviations; less where
            the logarithms are closer to each other. At least ``DEVIATIONS``.
    """

    index: int
    last: int
    usual: float
    deviations: float


def find_spikes(losses: Sequence[float], starts: Collection[int] = ()) -> list[FoundSpike]:
    """Return the spikes of a sequence of losses.

    A loss is a spike if it is ``DEVIATIONS`` standard deviations above the median of the ``WINDOW``
    losses before it, or not finite. The standard deviation is 1.4826 times the median absolute
    deviation, so that earlier spikes do not hide a later one. Where all losses are positive, the
    logarithm must be ``LOG_DEVIATIONS`` above its median, too: the losses of small batches have a
    skewed distribution, in which large values are no spikes.

    Args:
        losses: The loss of each step.
        starts: Indices at which a fit or a phase starts; losses before are not compared with those
            after.

    Source:
        The spike score of OLMo 2 (2025) counts values that are seven standard deviations away from
        the mean of the last 1,000; here the median takes the place of the mean.
    """
    values = np.asarray(losses, dtype=np.float64)
    edges = [0, *sorted(each for each in set(starts) if 0 < each < len(values)), len(values)]
    found: list[FoundSpike] = []
    for start, end in pairwise(edges):
        found += _in_part(values[start:end], start)
    return found


def _in_part(values: NDArray[np.float64], start: int) -> Iterator[FoundSpike]:
    current: FoundSpike | None = None
    for index in range(len(values)):
        before = values[max(0, index - WINDOW) : index]
        usual, deviations = _deviations(float(values[index]), before[np.isfinite(before)])
        if deviations < DEVIATIONS:
            continue
        place = start + index
        if current is not None and place - current.last <= _GAP:
            most = max(current.deviations, deviations)
            current = FoundSpike(current.index, place, current.usual, most)
            continue
        if current is not None:
            yield current
        current = FoundSpike(place, place, usual, deviations)
    if current is not None:
        yield current


def _deviations(value: float, before: NDArray[np.float64]) -> tuple[float, float]:
    """Return the median of the losses before, and how far a loss is above it."""
    usual = float(np.median(before)) if len(before) else math.nan
    if not math.isfinite(value):
        return usual, math.inf
    # Most losses are nearer than the smallest standard deviation allows; two medians are saved.
    smallest = LEAST_DEVIATION * max(abs(usual), LEAST_LOSS)
    if len(before) < LEAST or value - usual < 0.999 * DEVIATIONS * smallest:
        return usual, 0.0
    deviations = _distance(value, before, smallest)
    if float(before.min()) > 0:
        of_logarithm = _distance(math.log(value), np.log(before), LEAST_DEVIATION)
        # In units of the lower threshold, so that one number says whether both are reached.
        deviations = min(deviations, of_logarithm * DEVIATIONS / LOG_DEVIATIONS)
    return usual, deviations


def _distance(value: float, before: NDArray[np.float64], least: float) -> float:
    """Return how many standard deviations, of at least ``least``, a value is above the median."""
    middle = float(np.median(before))
    deviation = max(1.4826 * float(np.median(np.abs(before - middle))), least)
    return (value - middle) / deviation if deviation else math.inf


@dataclass(frozen=True)
class LossSpike:
    """A step whose loss is far above that of the steps before it.

    Attributes:
        step: The step, from 0; in a run of 65,536 steps or more the first of those that have one
            mean loss together.
        loss: Its loss, the largest of the spike.
        usual: Median loss of up to 100 steps before.
        deviations: How far the loss is above it in standard deviations, as in ``find_spikes``.
        steps: Number of steps until the loss was usual again.
        epoch: Epoch of the train set, from 0; None if unknown.
        epoch_step: The step within the epoch, from 0; None if unknown.
        samples: Numbers of the samples of its batch; empty if unknown.
        captions: What the samples are, such as the path of a file; of the first eight.
        note: Why something is unknown.
        checkpoint: The newest checkpoint before the step; None if there is none.
    """

    step: int
    loss: float
    usual: float
    deviations: float
    steps: int = 1
    epoch: int | None = None
    epoch_step: int | None = None
    samples: tuple[int, ...] = ()
    captions: tuple[str, ...] = ()
    note: str = ""
    checkpoint: Path | None = None

    def __str__(self) -> str:
        where = "" if self.epoch is None else f" (step {self.epoch_step} of epoch {self.epoch + 1})"
        lines = [
            f"step {self.step}{where}: loss {format_number(self.loss)} where "
            f"{format_number(self.usual)} is usual; back to it after {count_of(self.steps, 'step')}"
        ]
        if self.samples:
            lines.append(f"samples {', '.join(map(str, self.samples))}")
        lines += [f"  {number}: {text}" for number, text in self._with_captions()]
        lines += [self.note] if self.note else []
        if self.checkpoint is not None:
            lines.append(f"newest checkpoint before it: {self.checkpoint}")
        return "\n".join(lines)

    def _with_captions(self) -> Iterator[tuple[int, str]]:
        return (
            (number, " ".join(text.split()))
            for number, text in zip(self.samples, self.captions, strict=False)
            if text
        )


class LossSpikes(Sequence[LossSpike]):
    """The loss spikes of a training, in the order of the steps; ``print`` shows a table.

    Args:
        spikes: The spikes.
        losses: The losses in which they were found.
        interval: Steps per loss.
    """

    def __init__(
        self, spikes: Sequence[LossSpike], losses: Sequence[float] = (), interval: int = 1
    ) -> None:
        self._spikes = tuple(spikes)
        self._losses, self._interval = tuple(losses), interval

    @overload
    def __getitem__(self, index: int) -> LossSpike: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LossSpike, ...]: ...
    def __getitem__(self, index: int | slice) -> LossSpike | tuple[LossSpike, ...]:
        return self._spikes[index]

    def __len__(self) -> int:
        return len(self._spikes)

    def __str__(self) -> str:
        if not self._spikes:
            return f"No loss spike in {count_of(len(self._losses) * self._interval, 'step')}."
        lines = text_rows(_HEADERS, [_cells(spike) for spike in self._spikes], _RIGHT)
        return "\n".join([*lines, *self._notes()])

    def _repr_html_(self) -> str:
        if not self._spikes:
            return f"<p>{self}</p>"
        table = html_table(_HEADERS, [_cells(spike) for spike in self._spikes], _RIGHT)
        return table + "".join(f"<p>{html.escape(line)}</p>" for line in self._notes())

    def _notes(self) -> list[str]:
        return list(dict.fromkeys(spike.note for spike in self._spikes if spike.note))

    def plot(self, path: str | Path | None = None) -> Figure:
        """Plot the losses of the steps with the spikes marked.

        Args:
            path: File to write (.png, .pdf, .svg); None writes no file.

        Raises:
            InputError: There are no losses.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau.plotting import COLOURS, new_figure, save_figure, style_axes

        if not self._losses:
            raise InputError("There are no losses to plot: nothing was trained.")
        figure = new_figure(7.0, 3.2)
        axes = figure.subplots()
        steps = np.arange(len(self._losses)) * self._interval
        axes.plot(steps, self._losses, color=COLOURS[0], linewidth=0.8)
        finite = [spike for spike in self._spikes if math.isfinite(spike.loss)]
        axes.plot(
            [spike.step for spike in finite],
            [spike.loss for spike in finite],
            "o",
            color=COLOURS[3],
            markersize=6,
            markerfacecolor="none",
        )
        for spike in finite:
            axes.annotate(
                f"step {spike.step}",
                (spike.step, spike.loss),
                xytext=(6, -2),
                textcoords="offset points",
                fontsize=8,
            )
        low = min(filter(math.isfinite, self._losses), default=0.0)
        if low > 0:
            axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.set_title("loss", fontsize=11)
        style_axes(axes)
        return save_figure(figure, None if path is None else Path(path))


def _cells(spike: LossSpike) -> tuple[str, ...]:
    shown = [str(number) for number in spike.samples[:_SHOWN]]
    more = f", … ({len(spike.samples)})" if len(spike.samples) > _SHOWN else ""
    return (
        str(spike.step),
        "?" if spike.epoch is None else str(spike.epoch + 1),
        format_number(spike.loss),
        format_number(spike.usual),
        str(spike.steps),
        ", ".join(shown) + more if shown else "unknown",
    )
