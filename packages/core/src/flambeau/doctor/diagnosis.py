"""``diagnose``: what a list of checks finds, whatever single checks do."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from flambeau.doctor.check import Check
from flambeau.doctor.finding import Finding
from flambeau.doctor.subject import Subject
from flambeau.errors import ArgumentError

CRASHED = "check-crashed"
"""The code of the finding that stands for a check which could not be run."""

_WIDTH = 96
_INDENT = " " * 11


@dataclass(frozen=True)
class Report:
    """What the doctor found; ``print(report)`` shows it.

    Attributes:
        findings: Errors first, else in the order of the checks.
        checks: Those that were run.
    """

    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def codes(self) -> tuple[str, ...]:
        """The findings' codes."""
        return tuple(finding.code for finding in self.findings)

    def __str__(self) -> str:
        ran = f"{len(self.checks)} checks"
        if self.ok:
            looked = textwrap.wrap(
                "Looked for: " + "; ".join(check.looks_for for check in self.checks) + ".", _WIDTH
            )
            return "\n".join([f"{ran}, nothing found.", *looked])
        count = len(self.findings)
        lines = [f"{ran}, {count} finding{'s' if count > 1 else ''}:"]
        for finding in self.findings:
            lines += ["", f"  {finding.severity:<8} {finding.code}", *_told(finding)]
        return "\n".join(lines)


def diagnose(subject: Subject, checks: Sequence[Check], *, full: bool = False) -> Report:
    """What the checks find in a set-up.

    A check that itself fails never ends the run: it becomes a finding with the code
    ``"check-crashed"`` that names it. Checks that fail for the same reason share one.

    Args:
        subject: The set-up.
        checks: In the order in which they run; ``combine_checks`` merges core's and a domain's.
        full: Whether to run those that take long as well.
    """
    checks = [check for check in checks if full or check.runs != "full"]
    found: list[Finding] = []
    crashed: dict[str, list[str]] = {}
    for check in checks:
        try:
            found += findings_of(check, subject)
        except Exception as error:  # noqa: BLE001 - whatever a check raises, the others go on
            crashed.setdefault(f"{type(error).__name__}: {error}", []).append(check.code)
    found += [_crash(codes, error) for error, codes in crashed.items()]
    found.sort(key=lambda finding: finding.severity != "error")
    return Report(tuple(found), tuple(checks))


def combine_checks(base: Iterable[Check], own: Iterable[Check]) -> tuple[Check, ...]:
    """The checks of ``base``, each replaced by that of ``own`` with the same code, then the others.

    This is how a domain puts a better check in the place of core's.
    """
    replaced = {check.code: check for check in own}
    kept = [replaced.pop(check.code, check) for check in base]
    return (*kept, *replaced.values())


def findings_of(check: Check, subject: Subject) -> list[Finding]:
    """What one check finds, with the page where more is told.

    Raises:
        ArgumentError: The check returns something else than findings.
        Exception: Whatever the check raises.
    """
    answer: object = check.run(subject)
    if answer is None:
        return []
    several: list[object] = list(answer) if isinstance(answer, list | tuple) else [answer]
    findings = [one for one in several if isinstance(one, Finding)]
    if len(findings) < len(several):
        raise ArgumentError(
            f"{check.code} returned {answer!r:.80}. A check returns a Finding, a list of them, or "
            "None where all is well."
        )
    return [one if one.page else replace(one, page=check.page) for one in findings]


def _crash(codes: Sequence[str], error: str) -> Finding:
    names = ", ".join(codes)
    return Finding(
        CRASHED,
        f"{names} could not be checked: {error}",
        {"checks": list(codes)},
        "If the message speaks of your data or model, mend that; else the check itself is broken: "
        "tell the package that brings it.",
    )


def _told(finding: Finding) -> list[str]:
    evidence = ", ".join(f"{name} {_shown(value)}" for name, value in finding.evidence.items())
    parts = [
        finding.what,
        f"Measured: {evidence}" if evidence else "",
        f"To mend: {finding.mend}",
        f"More: {finding.page}" if finding.page else "",
    ]
    width = _WIDTH - len(_INDENT)
    return [_INDENT + line for part in parts for line in textwrap.wrap(part, width)]


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
