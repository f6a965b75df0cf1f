"""``ConformanceReport``: the results of all checks, with the reason and the fix of each failure."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Literal

from flambeau.errors import ConformanceError
from flambeau.wording import name_some

Status = Literal["passed", "failed", "expected"]


def conformance_error(what: str, why: str, fix: str) -> ConformanceError:
    """Return the error of a failed check.

    Args:
        what: What was found, with the value concerned.
        why: What goes wrong for users because of the fault.
        fix: What to change.
    """
    return ConformanceError(f"{what}\nWhy it matters: {why}\nFix: {fix}")


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        check: Name of the check.
        status: "passed", "failed", or "expected" (a failure that was declared with a reason).
        message: What was found, why it matters and how to fix it; or the declared reason.
    """

    check: str
    status: Status
    message: str = ""


@dataclass(frozen=True)
class ConformanceReport:
    """The results of all checks on one domain; ``print(report)`` shows them.

    Attributes:
        domain: Name of the domain.
        results: One per check, in the order in which they ran.
        models: Architectures that were built.
        not_built: Architectures of the domain that were not built.
    """

    domain: str
    results: tuple[CheckResult, ...]
    models: tuple[str, ...] = ()
    not_built: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        """The results that failed."""
        return tuple(result for result in self.results if result.status == "failed")

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    def raise_if_failed(self) -> None:
        """Raise a ConformanceError with the whole report if a check failed."""
        if not self.ok:
            raise ConformanceError(str(self))

    def __str__(self) -> str:
        count = len(self.failures)
        summary = f"{count} of {len(self.results)} checks failed" if count else "all checks passed"
        models = f"Models built: {name_some(self.models, 6) or 'none'}"
        if self.not_built:
            models += f"; not built: {name_some(self.not_built, 6)}"
        lines = [f"Domain {self.domain!r}: {summary}.", models]
        for result in self.results:
            lines.append(f"  {result.status:<8} {result.check}")
            if result.message:
                lines.append(textwrap.indent(result.message, " " * 11))
        return "\n".join(lines)
