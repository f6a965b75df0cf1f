"""Length and coverage penalties, by which a search ranks sentences of different lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from flambeau.errors import InputError


class LengthPenalty(Protocol):
    """The interface of length penalties: a divisor of a sentence's log-probability."""

    def divisor(self, length: float) -> float:
        """Return the divisor for a sentence of ``length`` tokens, the end token included."""
        ...


@dataclass(frozen=True)
class GnmtLengthPenalty:
    """A length penalty that divides the log-probability by ``((5 + length) / 6) ** alpha``.

    With ``alpha=0`` sentences are ranked by the log-probability alone.

    Source:
        Wu et al., "Google's Neural Machine Translation System" (arXiv 1609.08144), equation 14.
    """

    kind: ClassVar[str] = "gnmt"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def divisor(self, length: float) -> float:
        """Return the divisor for a sentence of ``length`` tokens, the end token included."""
        return ((5.0 + length) / 6.0) ** self.alpha


@dataclass(frozen=True)
class AverageLengthPenalty:
    """A length penalty that divides the log-probability by ``length ** alpha``.

    With ``alpha=1`` sentences are ranked by the mean log-probability per token.
    """

    kind: ClassVar[str] = "average"
    alpha: float = 1.0

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)

    def divisor(self, length: float) -> float:
        """Return the divisor for a sentence of ``length`` tokens, the end token included."""
        return length**self.alpha


def _check_alpha(alpha: float) -> None:
    if not alpha >= 0:
        raise InputError(f"alpha is an exponent and must be at least 0, not {alpha!r}.")


def coverage_penalty(attended: Tensor, mask: Tensor) -> Tensor:
    """Return ``sum(log(min(attention, 1)))`` over the source positions, a number of at most 0.

    It is 0 if the attention to every source position adds up to at least 1.

    Args:
        attended: Attention weight of each source position, summed over the target tokens,
            ``(..., source)``.
        mask: bool, of the same shape as ``attended``, True at tokens.

    Source:
        Wu et al. (arXiv 1609.08144), equation 14, without the factor beta.
    """
    # The floor keeps one position without attention from ruling a sentence out.
    return attended.clamp(1e-6, 1.0).log().masked_fill(~mask, 0.0).sum(-1)
