"""Schedules of the teacher-forcing probability: constant, linear, exponential, inverse sigmoid.

A schedule maps the optimizer step to the probability that the decoder reads the reference token. It
has no other input, so a resumed run continues it. A user-defined function can be used too:
``TeacherForcing(lambda step: …)``.

Source:
    Bengio, Vinyals, Jaitly and Shazeer, "Scheduled Sampling for Sequence Prediction with Recurrent
    Neural Networks" (arXiv 1506.03099), section 2.4, where ``i`` is the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from flambeau.errors import ArgumentError, InputError, did_you_mean


@dataclass(frozen=True)
class Constant:
    """The probability ``p`` at every step; ``p=1`` is plain teacher forcing."""

    kind: ClassVar[str] = "constant"
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_probability("p", self.p)

    def __call__(self, step: int) -> float:
        """Return the probability at an optimizer step."""
        return self.p


@dataclass(frozen=True)
class Linear:
    """A linear decrease of the probability: ``max(floor, k - c · step)``.

    Attributes:
        k: Probability at step 0.
        c: Decrease per step.
        floor: Minimum probability.
    """

    kind: ClassVar[str] = "linear"
    k: float = 1.0
    c: float = 1e-4
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_probability("k", self.k)
        _check_probability("floor", self.floor)
        if not self.c >= 0:
            raise InputError(f"c is the decrease per step and must be at least 0, not {self.c!r}.")

    def __call__(self, step: int) -> float:
        """Return the probability at an optimizer step."""
        return max(self.floor, self.k - self.c * step)


@dataclass(frozen=True)
class Exponential:
    """An exponential decrease of the probability: ``max(floor, k ** step)``.

    Attributes:
        k: Factor per step, between 0 and 1.
        floor: Minimum probability.
    """

    kind: ClassVar[str] = "exponential"
    k: float = 0.9999
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_probability("floor", self.floor)
        if not 0 < self.k < 1:
            raise InputError(
                f"k is the factor per step and must be between 0 and 1, not {self.k!r}."
            )

    def __call__(self, step: int) -> float:
        """Return the probability at an optimizer step."""
        return max(self.floor, self.k**step)


@dataclass(frozen=True)
class InverseSigmoid:
    """An inverse sigmoid decrease of the probability: ``max(floor, k / (k + exp(step / k)))``.

    The probability begins at ``k / (k + 1)`` and is 0.5 at step ``k · log(k)``, which is 6,908 for
    ``k=1000``.

    Attributes:
        k: Time scale in steps, at least 1; with a larger value the probability decreases later.
        floor: Minimum probability.
    """

    kind: ClassVar[str] = "inverse_sigmoid"
    k: float = 1_000.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_probability("floor", self.floor)
        if not self.k >= 1:
            raise InputError(f"k is a number of steps and must be at least 1, not {self.k!r}.")

    def __call__(self, step: int) -> float:
        """Return the probability at an optimizer step."""
        power = step / self.k
        # Above 700 exp() overflows a float, and the quotient is 0.
        return max(self.floor, self.k / (self.k + math.exp(power)) if power < 700 else 0.0)


Named = Constant | Linear | Exponential | InverseSigmoid

_KINDS: Mapping[str, type[Named]] = {
    each.kind: each for each in (Constant, Linear, Exponential, InverseSigmoid)
}


def as_json(schedule: Named) -> dict[str, Any]:
    """Return JSON values from which ``schedule_from_json`` rebuilds the schedule."""
    return {"kind": schedule.kind, **asdict(schedule)}


def schedule_from_json(values: Mapping[str, Any]) -> Named:
    """Rebuild a schedule from the values of ``as_json``.

    Raises:
        ArgumentError: The kind or a field is unknown.
    """
    given = dict(values)
    kind = str(given.pop("kind", None))
    if kind not in _KINDS:
        raise ArgumentError(f"Unknown schedule {kind!r}. {did_you_mean(kind, _KINDS)}")
    schedule = _KINDS[kind]
    for name in given:
        if name not in schedule.__dataclass_fields__:
            raise ArgumentError(
                f"The {kind} schedule has no parameter {name!r}. "
                f"{did_you_mean(name, schedule.__dataclass_fields__)}"
            )
    return schedule(**given)


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is a probability and must be between 0 and 1, not {value!r}.")
