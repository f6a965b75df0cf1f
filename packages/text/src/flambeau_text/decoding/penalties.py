"""Which of two sentences of different length is the better one, and whether all was said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from flambeau.errors import InputError


class LengthPenalty(Protocol):
    """What a log-probability is divided by; grows with the length."""

    def divisor(self, length: float) -> float:
        """For a sentence of ``length`` words, its end included."""
        ...


@dataclass(frozen=True)
class Gnmt:
    """``((5 + length) / 6) ** alpha``: 0 ranks by the plain probability, which favours the short.

    Source:
        Wu et al., "Google's Neural Machine Translation System" (arXiv 1609.08144), equation 14.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not self.alpha >= 0:
            raise InputError(f"alpha is a power, at least 0, not {self.alpha!r}.")

    def divisor(self, length: float) -> float:
        """The penalty of a length."""
        return ((5.0 + length) / 6.0) ** self.alpha


@dataclass(frozen=True)
class Average:
    """``length ** alpha``: with 1 the mean log-probability of a word."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not self.alpha >= 0:
            raise InputError(f"alpha is a power, at least 0, not {self.alpha!r}.")

    def divisor(self, length: float) -> float:
        """The penalty of a length."""
        return length**self.alpha


def coverage_penalty(seen: Tensor, mask: Tensor) -> Tensor:
    """``sum(log(min(weight, 1)))`` over the source: 0 where every position was attended to.

    Args:
        seen: Attention each position got from all words, ``(..., source)``.
        mask: bool, of the same shape, True where a position counts.

    Source:
        Wu et al. (arXiv 1609.08144), equation 14, without the factor.
    """
    # The floor keeps a position that was never looked at from ruling a sentence out altogether.
    return seen.clamp(1e-6, 1.0).log().masked_fill(~mask, 0.0).sum(-1)
