"""``Report``: what the checks found, in words that say how to fix it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal

from flambeau.errors import ConformanceError

Status = Literal["passed", "failed", "expected"]


def broken(what: str, why: str, fix: str) -> ConformanceError:
    """The error of a check.

    Args:
        what: What was seen, with the offending value.
        why: What goes wrong for users because of it.
        fix: What to change.
    """
    return ConformanceError(f"{what}\nWhy it matters: {why}\nFix: {fix}")


def brief(numbers: list[int]) -> str:
    """The first few numbers, and how many there are."""
    return f"{numbers[:5]}… ({len(numbers)})" if len(numbers) > 5 else f"{numbers}"


@dataclass(frozen=True)
class Outcome:
    """What one check found.

    Attributes:
        check: Name of the check.
        status: "passed", "failed", or "expected" (a failure that was announced with a reason).
        message: What, why and how to fix it; or the reason.
    """

    check: str
    status: Status
    message: str = ""


@dataclass(frozen=True)
class Report:
    """What all checks found in one domain; ``print(report)`` shows it.

    Attributes:
        domain: Its name.
        outcomes: One a check, in the order in which they ran.
        models: Architectures that were built.
        left_out: Architectures of the domain that were not.
    """

    domain: str
    outcomes: tuple[Outcome, ...]
    models: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The outcomes that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def raise_if_failed(self) -> None:
        """Raises a ConformanceError with the whole report unless every check passed."""
        if not self.ok:
            raise ConformanceError(str(self))

    def __str__(self) -> str:
        count = len(self.failures)
        verdict = f"{count} of {len(self.outcomes)} checks failed" if count else "every check holds"
        lines = [f"Domain {self.domain!r}: {verdict}.", f"Models built: {_listed(self.models)}"]
        if self.left_out:
            lines[-1] += f"; not built: {_listed(self.left_out)}"
        for outcome in self.outcomes:
            lines.append(f"  {outcome.status:<8} {outcome.check}")
            if outcome.message:
                lines.append(textwrap.indent(outcome.message, " " * 11))
        return "\n".join(lines)


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return (", ".join(names[:6]) or "none") + more
