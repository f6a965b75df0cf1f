"""Schedules: functions that map progress within a phase to a factor of the peak value.

Progress is 0 at the first step of a phase and 1 at the last one: step ``i`` of ``n`` has progress
``i / max(1, n - 1)``, so these two steps have exactly the start and end values of the curve.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

from flambeau.checked_arguments import checked_number
from flambeau.errors import ArgumentError, InputError, did_you_mean

Option = float | Sequence[float]


def constant(progress: float) -> float:
    """Return 1 for any progress."""
    return 1.0


def linear(progress: float, *, start: float = 1.0, end: float = 0.0) -> float:
    """Interpolate linearly from ``start`` to ``end``."""
    # Unlike start + (end - start) * progress, this form is exact at both ends.
    return start * (1.0 - progress) + end * progress


def one_cycle(
    progress: float, *, div: float = 25.0, final_div: float = 1e5, pct_start: float = 0.25
) -> float:
    """Rise from ``1 / div`` to 1 over the first ``pct_start``, then fall to ``1 / final_div``.

    Source:
        Smith and Topin, "Super-Convergence" (https://arxiv.org/abs/1708.07120), with cosine
        segments.
        ``final_div`` is relative to the peak; in ``torch.optim.lr_scheduler.OneCycleLR`` it is
        relative to the start, which corresponds to ``final_div / div`` here.
    """
    if progress < pct_start:
        return _cosine_arm(1.0 / div, 1.0, progress / pct_start)
    return _cosine_arm(1.0, 1.0 / final_div, _fraction(progress, pct_start))


def cosine(
    progress: float, *, warmup: float = 0.05, end: float = 0.0, start: float = 0.04
) -> float:
    """Warm up linearly from ``start`` over the first ``warmup``, then half a cosine to ``end``.

    ``start`` is not 0 by default, because a first (or only) step at rate 0 has no effect.

    Source:
        Loshchilov and Hutter, "SGDR" (https://arxiv.org/abs/1608.03983), without restarts.
    """
    if progress < warmup:
        return linear(progress / warmup, start=start, end=1.0)
    return _cosine_arm(1.0, end, _fraction(progress, warmup))


def flat_cos(progress: float, *, pct_start: float = 0.75, div_final: float = 1e5) -> float:
    """Return 1 over the first ``pct_start``, then half a cosine to ``1 / div_final``."""
    if progress < pct_start:
        return 1.0
    return _cosine_arm(1.0, 1.0 / div_final, _fraction(progress, pct_start))


def step(
    progress: float, *, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1
) -> float:
    """Start at 1 and multiply by ``gamma`` at each milestone, a progress value in [0, 1]."""
    return gamma ** sum(progress >= milestone for milestone in milestones)


def sgdr(progress: float, *, cycles: float = 3, cycle_mult: float = 2.0, end: float = 0.0) -> float:
    """Repeat half a cosine from 1 to ``end``; each is ``cycle_mult`` times as long as the last.

    Source:
        Loshchilov and Hutter, "SGDR" (https://arxiv.org/abs/1608.03983).
    """
    lengths = [cycle_mult**cycle for cycle in range(int(cycles))]
    position = progress * sum(lengths)
    for length in lengths[:-1]:
        # A step at a restart, within rounding error, belongs to the new cycle.
        if position < length * (1.0 - 1e-9):
            return _cosine_arm(1.0, end, position / length)
        position = max(0.0, position - length)
    return _cosine_arm(1.0, end, min(1.0, position / lengths[-1]))


def coslog(progress: float, *, cycles: float = 4, start: float = 0.04) -> float:
    """Rise to 1 and fall to 0 in cosines ``cycles`` times, each time about twice as slowly.

    Cycle ``i`` of ``n`` ends at the progress ``(2**i - 1) / (2**n - 1)``. ``start`` is the factor
    of the first step; it is not 0 by default, because a first (or only) step at rate 0 has no
    effect.

    Source:
        Holzmüller et al., "Better by Default: Strong Pre-Tuned MLPs and Boosted Trees on Tabular
        Data", 2024 (arXiv 2407.04491), with 4 cycles ("coslog4") and ``start`` 0.
    """
    position = math.log2(1.0 + (2.0**cycles - 1.0) * progress)
    lowest = start if position < 0.5 else 0.0
    return _cosine_arm(lowest, 1.0, 2.0 * position)


def cycle(
    progress: float,
    *,
    start: float = 1.0,
    middle: float = 0.0,
    end: float = 1.0,
    pct_start: float = 0.25,
) -> float:
    """Move from ``start`` to ``middle`` over the first ``pct_start``, then to ``end``, in cosines.

    For example momentum with a one-cycle learning rate: peak 1, start and end 0.95, middle 0.85.
    """
    if progress < pct_start:
        return _cosine_arm(start, middle, progress / pct_start)
    return _cosine_arm(middle, end, _fraction(progress, pct_start))


def slanted_triangular(progress: float, *, cut_frac: float = 0.1, ratio: float = 32.0) -> float:
    """Rise linearly from ``1 / ratio`` to 1 over the first ``cut_frac``, then fall back linearly.

    Source:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018
        (arXiv 1801.06146), equation 3, where t / T is the progress. Its rounding of T × cut_frac
        to a whole step is omitted: in runs of fewer than 100 steps it makes the last rates
        negative.
    """
    share = progress / cut_frac if progress < cut_frac else 1.0 - _fraction(progress, cut_frac)
    return (1.0 + share * (ratio - 1.0)) / ratio


def table(progress: float, *, values: Sequence[float] = (1.0,)) -> float:
    """Return one of ``values``, each of which covers an equal part of the progress.

    A table has one value for each epoch of the phase, or for each of its steps.
    """
    return values[min(len(values) - 1, int(progress * len(values)))]


SHAPES: Mapping[str, Callable[..., float]] = {
    "constant": constant,
    "cosine": cosine,
    "coslog": coslog,
    "cycle": cycle,
    "flat_cos": flat_cos,
    "linear": linear,
    "one_cycle": one_cycle,
    "sgdr": sgdr,
    "slanted_triangular": slanted_triangular,
    "step": step,
    "table": table,
}
"""Schedule shapes by the name that is saved in checkpoints."""


TORCH_SCHEDULE = (
    'Pass the scheduler as a schedule: fit(10, schedules={"lr": torch_schedule(lambda optimizer: '
    "StepLR(optimizer, 3), length=10, lr=0.1)}) (flambeau.phases.torch_schedule)."
)
"""How to use a scheduler of torch, for messages."""


def is_torch_scheduler(value: object) -> bool:
    """Return whether the value is a scheduler of torch, or the class or a ``partial`` of one."""
    value = getattr(value, "func", value)
    kind: type[object] = cast("type[object]", value) if isinstance(value, type) else type(value)
    return any(base.__name__ == "LRScheduler" for base in kind.__mro__)


def checked_schedules(schedules: object) -> Mapping[str, Schedule]:
    """Return ``schedules`` after checking its type.

    Raises:
        ArgumentError: ``schedules`` is not a mapping from names to ``Schedule``.
    """
    if not isinstance(schedules, Mapping):
        advice = f" {TORCH_SCHEDULE}" if is_torch_scheduler(schedules) else ""
        raise ArgumentError(
            f"schedules is {schedules!r:.60}; give schedules by the name of the value: "
            f'{{"lr": Schedule("cosine", 0.1)}}.{advice}'
        )
    by_name = cast("Mapping[str, object]", schedules)
    for name, value in by_name.items():
        if not isinstance(value, Schedule):
            advice = f'Give a Schedule: {{{name!r}: Schedule("constant", 0.1)}}.'
            if is_torch_scheduler(value):
                advice = TORCH_SCHEDULE
            elif callable(value):
                advice = f"Give Schedule(function, peak) for a function: {{{name!r}: Schedule(…)}}."
            raise ArgumentError(f"The schedule of {name!r} is {value!r:.60}. {advice}")
    return cast("Mapping[str, Schedule]", by_name)


@dataclass(frozen=True)
class Schedule:
    """The schedule of "lr" (or another named value) over a phase.

    Attributes:
        shape: A name in ``SHAPES``, or a function of progress that returns a factor of
            ``peak``. A function cannot be saved in a checkpoint.
        peak: The value at the factor 1.
        options: Keyword arguments of the shape, by name.

    Raises:
        ArgumentError: The shape or an option is unknown.
        InputError: An option or the peak has an invalid value.

    >>> Schedule("linear", peak=0.1)(0.5)
    0.05
    """

    shape: str | Callable[[float], float]
    peak: float = 1.0
    options: Mapping[str, Option] = field(default_factory=dict[str, Option])

    def __post_init__(self) -> None:
        object.__setattr__(self, "peak", checked_number(self.peak, "A schedule's peak"))
        if not isinstance(self.shape, str):
            if not callable(self.shape):
                raise ArgumentError(
                    f"shape must be a name or a function of progress, not {self.shape!r}. "
                    f"{did_you_mean('', SHAPES)}"
                )
            if self.options:
                raise ArgumentError(
                    f"Options {sorted(self.options)} were given with a function, which is called "
                    "with progress only. Bind them with functools.partial."
                )
            return
        if self.shape not in SHAPES:
            raise ArgumentError(
                f"Unknown schedule {self.shape!r}. {did_you_mean(self.shape, SHAPES)}"
            )
        if not self.options:
            return
        known = list(inspect.signature(SHAPES[self.shape]).parameters)[1:]
        for name, value in self.options.items():
            if name not in known:
                raise ArgumentError(
                    f"The schedule {self.shape!r} has no option {name!r}. "
                    f"{did_you_mean(name, known)}"
                )
            _check_option(self.shape, name, value)

    def __call__(self, progress: float) -> float:
        """Return ``peak`` times the shape's factor at ``progress`` in [0, 1]."""
        if not 0.0 <= progress <= 1.0:
            raise InputError(
                f"progress is {progress}, but it must be from 0 to 1. Step i of n has progress "
                "i / max(1, n - 1)."
            )
        if isinstance(self.shape, str):
            return self.peak * SHAPES[self.shape](progress, **self.options)
        return self.peak * self.shape(progress)

    def check_length(self, epochs: int | None, steps: int) -> None:
        """Check that a table has a value for each epoch or for each step of its phase.

        Raises:
            InputError: The table has another number of values.
        """
        if self.shape != "table":
            return
        values = self.options.get("values", (1.0,))
        n = len(values) if isinstance(values, Sequence) else 1
        if n not in (1, epochs, steps):
            parts, epoch = ("", "") if epochs is None else (f"{epochs} epochs of ", "epoch, or ")
            raise InputError(
                f"A schedule has {n} values, but its phase has {parts}{steps} steps in total. "
                f"Give one value for each {epoch}step."
            )

    def as_json(self) -> dict[str, Any]:
        """Return JSON values for a checkpoint.

        Raises:
            ArgumentError: The shape is a function.
        """
        if not isinstance(self.shape, str):
            raise ArgumentError(
                f"The schedule's shape {self.shape!r} is a function and cannot be saved, so the "
                f"run cannot be resumed. Use the name of a shape: {', '.join(SHAPES)}."
            )
        options = {
            name: list(value) if isinstance(value, Sequence) else value
            for name, value in self.options.items()
        }
        return {"shape": self.shape, "peak": self.peak, "options": options}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the schedule that ``as_json`` converted."""
        return cls(values["shape"], values["peak"], dict(values["options"]))


def _cosine_arm(start: float, end: float, fraction: float) -> float:
    weight = 0.5 * (1.0 + math.cos(math.pi * fraction))
    return end + (start - end) * weight


def _fraction(progress: float, start: float) -> float:
    """Return the position of ``progress`` between ``start`` and 1; 1 if ``start`` is 1."""
    return 1.0 if start >= 1.0 else (progress - start) / (1.0 - start)


def _check_option(shape: str, name: str, value: Option) -> None:
    """Check that the curve is defined for the value of an option."""
    if name == "milestones":
        if not isinstance(value, Sequence) or not all(0.0 <= entry <= 1.0 for entry in value):
            raise InputError(
                f"milestones of the schedule {shape!r} must be progress values from 0 to 1, not "
                f"{value!r}. Divide steps by the phase's steps, epochs by its epochs."
            )
        return
    if name == "values":
        if not isinstance(value, Sequence) or not value or not all(map(math.isfinite, value)):
            raise InputError(
                f"values of the schedule {shape!r} must be a list of finite numbers, not {value!r}."
            )
        return
    if isinstance(value, Sequence) or not math.isfinite(value):
        raise InputError(f"{name} of the schedule {shape!r} must be a number, not {value!r}.")
    if name in ("pct_start", "warmup", "cut_frac") and not 0.0 <= value <= 1.0:
        raise InputError(f"{name} of the schedule {shape!r} must be from 0 to 1, not {value}.")
    if name in ("div", "final_div", "div_final", "gamma", "cycle_mult", "ratio") and value <= 0:
        raise InputError(f"{name} of the schedule {shape!r} must be positive, not {value}.")
    if name == "start" and shape == "coslog" and not 0.0 <= value <= 1.0:
        raise InputError(f"start of the schedule 'coslog' must be from 0 to 1, not {value}.")
    if name == "cycles" and (value < 1 or value != int(value)):
        raise InputError(
            f"cycles of the schedule {shape!r} must be a whole number ≥ 1, not {value}."
        )
