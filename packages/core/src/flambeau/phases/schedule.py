"""Schedules: pure functions of progress, 0 at a phase's first step and 1 at its last.

Each gives a factor of the peak. Step ``i`` of ``n`` has progress ``i / max(1, n - 1)``, so the
first and the last step get the curve's two ends exactly.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from flambeau.errors import ArgumentError, InputError, did_you_mean

Option = float | Sequence[float]


def constant(progress: float) -> float:
    """1 throughout."""
    return 1.0


def linear(progress: float, *, start: float = 1.0, end: float = 0.0) -> float:
    """A straight line from ``start`` to ``end``."""
    # This form gives both ends exactly, which start + (end - start) * progress does not.
    return start * (1.0 - progress) + end * progress


def one_cycle(
    progress: float, *, div: float = 25.0, final_div: float = 1e5, pct_start: float = 0.25
) -> float:
    """Up from ``1 / div`` to 1 over the first ``pct_start``, down to ``1 / final_div``; cosine.

    Source:
        Smith and Topin, "Super-Convergence" (https://arxiv.org/abs/1708.07120), with cosine arms.
        ``final_div`` counts from the peak; that of ``torch.optim.lr_scheduler.OneCycleLR`` counts
        from the start, so there it is ``final_div / div``.
    """
    if progress < pct_start:
        return _cosine_arm(1.0 / div, 1.0, progress / pct_start)
    return _cosine_arm(1.0, 1.0 / final_div, _fraction(progress, pct_start))


def cosine(
    progress: float, *, warmup: float = 0.05, end: float = 0.0, start: float = 0.04
) -> float:
    """A straight warm-up from ``start`` over the first ``warmup``, then half a cosine to ``end``.

    ``start`` is not 0 by default: the first step would do nothing, and a run of one step neither.

    Source:
        Loshchilov and Hutter, "SGDR" (https://arxiv.org/abs/1608.03983), without restarts.
    """
    if progress < warmup:
        return linear(progress / warmup, start=start, end=1.0)
    return _cosine_arm(1.0, end, _fraction(progress, warmup))


def flat_cos(progress: float, *, pct_start: float = 0.75, div_final: float = 1e5) -> float:
    """1 over the first ``pct_start``, then half a cosine to ``1 / div_final``."""
    if progress < pct_start:
        return 1.0
    return _cosine_arm(1.0, 1.0 / div_final, _fraction(progress, pct_start))


def step(
    progress: float, *, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1
) -> float:
    """Multiplied by ``gamma`` at each milestone, a share of the phase in [0, 1]."""
    return gamma ** sum(progress >= milestone for milestone in milestones)


def sgdr(progress: float, *, cycles: float = 3, cycle_mult: float = 2.0, end: float = 0.0) -> float:
    """``cycles`` half cosines from 1 to ``end``, each ``cycle_mult`` times as long as the last.

    Source:
        Loshchilov and Hutter, "SGDR" (https://arxiv.org/abs/1608.03983).
    """
    lengths = [cycle_mult**cycle for cycle in range(int(cycles))]
    position = progress * sum(lengths)
    for length in lengths[:-1]:
        # A step that lies on a restart up to rounding belongs to the new cycle.
        if position < length * (1.0 - 1e-9):
            return _cosine_arm(1.0, end, position / length)
        position = max(0.0, position - length)
    return _cosine_arm(1.0, end, min(1.0, position / lengths[-1]))


def cycle(
    progress: float,
    *,
    start: float = 1.0,
    middle: float = 0.0,
    end: float = 1.0,
    pct_start: float = 0.25,
) -> float:
    """From ``start`` to ``middle`` over the first ``pct_start``, then to ``end``; cosine.

    For momentum beside a one-cycle rate: peak 1, start and end 0.95, middle 0.85.
    """
    if progress < pct_start:
        return _cosine_arm(start, middle, progress / pct_start)
    return _cosine_arm(middle, end, _fraction(progress, pct_start))


def slanted_triangular(progress: float, *, cut_frac: float = 0.1, ratio: float = 32.0) -> float:
    """Up in a line from ``1 / ratio`` to 1 over the first ``cut_frac``, then down in a longer one.

    Source:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018
        (arXiv 1801.06146), equation 3, where t / T is the progress. Its rounding of T × cut_frac
        to a whole step is left out: in runs of fewer than 100 steps it makes the last rates
        negative.
    """
    share = progress / cut_frac if progress < cut_frac else 1.0 - _fraction(progress, cut_frac)
    return (1.0 + share * (ratio - 1.0)) / ratio


SHAPES: Mapping[str, Callable[..., float]] = {
    "constant": constant,
    "cosine": cosine,
    "cycle": cycle,
    "flat_cos": flat_cos,
    "linear": linear,
    "one_cycle": one_cycle,
    "sgdr": sgdr,
    "slanted_triangular": slanted_triangular,
    "step": step,
}
"""Shapes by the name under which a checkpoint keeps them."""


@dataclass(frozen=True)
class Schedule:
    """The value of "lr" (or another named value) at any point of a phase.

    Attributes:
        shape: A name in ``SHAPES``, or any function of progress to a factor of ``peak``; a
            function of your own cannot be saved in a checkpoint.
        peak: What the factor is multiplied with.
        options: The shape's own settings, by name.

    Raises:
        ArgumentError: The shape or an option is unknown.
        InputError: An option or the peak has an impossible value.

    >>> Schedule("linear", peak=0.1)(0.5)
    0.05
    """

    shape: str | Callable[[float], float]
    peak: float = 1.0
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])

    def __post_init__(self) -> None:
        if not math.isfinite(self.peak):
            raise InputError(f"A schedule's peak must be a finite number, not {self.peak}.")
        if not isinstance(self.shape, str):
            if not callable(self.shape):
                raise ArgumentError(
                    f"A schedule's shape is a name or a function of progress, not {self.shape!r}. "
                    f"{did_you_mean('', SHAPES)}"
                )
            if self.options:
                raise ArgumentError(
                    f"Options {sorted(self.options)} were given with a function of your own, which "
                    "takes progress alone. Bind them yourself with functools.partial."
                )
            return
        if self.shape not in SHAPES:
            raise ArgumentError(
                f"There is no schedule {self.shape!r}. {did_you_mean(self.shape, SHAPES)}"
            )
        if not self.options:
            return
        known = list(inspect.signature(SHAPES[self.shape]).parameters)[1:]
        for name, value in self.options.items():
            if name not in known:
                raise ArgumentError(
                    f"The schedule {self.shape!r} has no option {name!r}. {did_you_mean(name, known)}"
                )
            _check_option(self.shape, name, value)

    def __call__(self, progress: float) -> float:
        """``peak`` times the shape's factor at ``progress`` in [0, 1]."""
        if not 0.0 <= progress <= 1.0:
            raise InputError(
                f"A schedule was asked for progress {progress}, outside 0..1. Step i of n has "
                "progress i / max(1, n - 1)."
            )
        if isinstance(self.shape, str):
            return self.peak * SHAPES[self.shape](progress, **self.options)
        return self.peak * self.shape(progress)

    def as_json(self) -> dict[str, Any]:
        """Plain values for a checkpoint.

        Raises:
            ArgumentError: The shape is a function of the user's own.
        """
        if not isinstance(self.shape, str):
            raise ArgumentError(
                f"The schedule's shape {self.shape!r} is a function and cannot be saved, so a run "
                f"with it cannot be resumed. Use a shape by name: {', '.join(SHAPES)}."
            )
        options = {
            name: list(value) if isinstance(value, Sequence) else value
            for name, value in self.options.items()
        }
        return {"shape": self.shape, "peak": self.peak, "options": options}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``as_json``."""
        return cls(values["shape"], values["peak"], dict(values["options"]))


def _cosine_arm(start: float, end: float, fraction: float) -> float:
    weight = 0.5 * (1.0 + math.cos(math.pi * fraction))
    return end + (start - end) * weight


def _fraction(progress: float, start: float) -> float:
    """How far ``progress`` is from ``start`` to 1; 1 where the two coincide."""
    return 1.0 if start >= 1.0 else (progress - start) / (1.0 - start)


def _check_option(shape: str, name: str, value: Option) -> None:
    """Refuses values for which the curve is not defined."""
    if name == "milestones":
        if not isinstance(value, Sequence) or not all(0.0 <= entry <= 1.0 for entry in value):
            raise InputError(
                f"milestones of the schedule {shape!r} are shares of the phase in 0..1, not "
                f"{value!r}. Divide steps by the phase's steps, epochs by its epochs."
            )
        return
    if isinstance(value, Sequence) or not math.isfinite(value):
        raise InputError(f"{name} of the schedule {shape!r} must be a number, not {value!r}.")
    if name in ("pct_start", "warmup", "cut_frac") and not 0.0 <= value <= 1.0:
        raise InputError(f"{name} of the schedule {shape!r} is a share in 0..1, not {value}.")
    if name in ("div", "final_div", "div_final", "gamma", "cycle_mult", "ratio") and value <= 0:
        raise InputError(f"{name} of the schedule {shape!r} must be positive, not {value}.")
    if name == "cycles" and (value < 1 or value != int(value)):
        raise InputError(
            f"cycles of the schedule {shape!r} must be a whole number ≥ 1, not {value}."
        )
