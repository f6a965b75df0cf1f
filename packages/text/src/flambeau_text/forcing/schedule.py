"""How probable the true word is, by optimizer step: constant, linear, exponential, inverse sigmoid.

A schedule is a function of the step, so a resumed run goes on where it was. Any function of one's
own serves as well: ``TeacherForcing(lambda step: …)``.

Source:
    Bengio, Vinyals, Jaitly and Shazeer, "Scheduled Sampling for Sequence Prediction with Recurrent
    Neural Networks" (arXiv 1506.03099), section 2.4, where ``i`` is the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from flambeau.errors import ArgumentError, InputError, nearest


@dataclass(frozen=True)
class Constant:
    """The same probability throughout; 1 is plain teacher forcing."""

    kind: ClassVar[str] = "constant"
    p: float = 1.0

    def __post_init__(self) -> None:
        _check_share("p", self.p)

    def __call__(self, step: int) -> float:
        """The probability at an optimizer step."""
        return self.p


@dataclass(frozen=True)
class Linear:
    """``max(floor, k - c · step)``.

    Attributes:
        k: At step 0.
        c: What each step takes off.
        floor: The least.
    """

    kind: ClassVar[str] = "linear"
    k: float = 1.0
    c: float = 1e-4
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_share("k", self.k)
        _check_share("floor", self.floor)
        if not self.c >= 0:
            raise InputError(f"c is what each step takes off, at least 0, not {self.c!r}.")

    def __call__(self, step: int) -> float:
        """The probability at an optimizer step."""
        return max(self.floor, self.k - self.c * step)


@dataclass(frozen=True)
class Exponential:
    """``max(floor, k ** step)``.

    Attributes:
        k: Below 1.
        floor: The least.
    """

    kind: ClassVar[str] = "exponential"
    k: float = 0.9999
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_share("floor", self.floor)
        if not 0 < self.k < 1:
            raise InputError(f"k is a factor between 0 and 1, not {self.k!r}.")

    def __call__(self, step: int) -> float:
        """The probability at an optimizer step."""
        return max(self.floor, self.k**step)


@dataclass(frozen=True)
class InverseSigmoid:
    """``max(floor, k / (k + exp(step / k)))``: stays high for some ``k`` steps, then falls.

    Attributes:
        k: At least 1.
        floor: The least.
    """

    kind: ClassVar[str] = "inverse_sigmoid"
    k: float = 1_000.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check_share("floor", self.floor)
        if not self.k >= 1:
            raise InputError(f"k is a number of steps, at least 1, not {self.k!r}.")

    def __call__(self, step: int) -> float:
        """The probability at an optimizer step."""
        power = step / self.k
        # Beyond, exp is larger than a float can be, and the quotient 0.
        return max(self.floor, self.k / (self.k + math.exp(power)) if power < 700 else 0.0)


Named = Constant | Linear | Exponential | InverseSigmoid

_KINDS: Mapping[str, type[Named]] = {
    each.kind: each for each in (Constant, Linear, Exponential, InverseSigmoid)
}


def as_json(schedule: Named) -> dict[str, Any]:
    """Kind and numbers; ``schedule_from_json`` takes them back."""
    return {"kind": schedule.kind, **asdict(schedule)}


def schedule_from_json(values: Mapping[str, Any]) -> Named:
    """The schedule that ``as_json`` described.

    Raises:
        ArgumentError: A kind or a field is unknown.
    """
    given = dict(values)
    kind = str(given.pop("kind", None))
    if kind not in _KINDS:
        raise ArgumentError(f"There is no schedule {kind!r}. {nearest(kind, _KINDS)}")
    made = _KINDS[kind]
    for name in given:
        if name not in made.__dataclass_fields__:
            raise ArgumentError(
                f"The {kind} schedule has no {name!r}. {nearest(name, made.__dataclass_fields__)}"
            )
    return made(**given)


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is a probability, 0 to 1, not {value!r}.")
