"""``diagnose``: run a list of checks and collect their findings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from flambeau.doctor.check import Check
from flambeau.doctor.finding import Finding
from flambeau.doctor.training_setup import TrainingSetup
from flambeau.errors import ArgumentError

CRASHED = "check-crashed"
"""The code of the finding that reports a check that raised an error."""

_WIDTH = 96
_INDENT = " " * 11


@dataclass(frozen=True)
class Diagnosis:
    """The findings of a list of checks; ``print(diagnosis)`` shows them.

    Attributes:
        findings: Errors first, otherwise in the order of the checks.
        checks: The checks that ran.
    """

    findings: tuple[Finding, ...]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no findings."""
        return not self.findings

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings."""
        return tuple(finding.code for finding in self.findings)

    def __str__(self) -> str:
        ran = f"{len(self.checks)} checks"
        if self.ok:
            checked = textwrap.wrap(
                "Checked for: " + "; ".join(check.looks_for for check in self.checks) + ".", _WIDTH
            )
            return "\n".join([f"{ran}, no findings.", *checked])
        count = len(self.findings)
        lines = [f"{ran}, {count} finding{'s' if count > 1 else ''}:"]
        for finding in self.findings:
            lines += ["", f"  {finding.severity:<8} {finding.code}", *_finding_lines(finding)]
        return "\n".join(lines)


def diagnose(setup: TrainingSetup, checks: Sequence[Check], *, full: bool = False) -> Diagnosis:
    """Run checks on a training setup and return their findings.

    If a check raises an error, the others still run; the error becomes a finding with the code
    ``"check-crashed"`` that names the check. Checks with the same error share one finding.

    Args:
        setup: The training setup.
        checks: In the order in which they run; ``combine_checks`` merges core's and a domain's.
        full: Whether to run the slow checks as well.
    """
    checks = [check for check in checks if full or check.runs != "full"]
    found: list[Finding] = []
    crashed: dict[str, list[str]] = {}
    for check in checks:
        try:
            found += findings_of(check, setup)
        except Exception as error:  # noqa: BLE001 - an error in one check must not stop the others
            crashed.setdefault(f"{type(error).__name__}: {error}", []).append(check.code)
    found += [_crash(codes, error) for error, codes in crashed.items()]
    found.sort(key=lambda finding: finding.severity != "error")
    return Diagnosis(tuple(found), tuple(checks))


def combine_checks(base: Iterable[Check], added: Iterable[Check]) -> tuple[Check, ...]:
    """Return the checks of ``base`` and ``added``.

    If both contain a check with the same code, the check in ``added`` is used: a domain can replace
    one of core's checks.
    """
    by_code = {check.code: check for check in added}
    kept = [by_code.pop(check.code, check) for check in base]
    return (*kept, *by_code.values())


def findings_of(check: Check, setup: TrainingSetup) -> list[Finding]:
    """Run one check and return its findings; a finding without a page gets the check's page.

    Raises:
        ArgumentError: The check returns something other than findings.
        Exception: Whatever the check raises.
    """
    result: object = check.run(setup)
    if result is None:
        return []
    several: list[object] = list(result) if isinstance(result, list | tuple) else [result]
    findings = [one for one in several if isinstance(one, Finding)]
    if len(findings) < len(several):
        raise ArgumentError(
            f"{check.code} returned {result!r:.80}. A check must return a Finding, a list of "
            "findings, or None if there is no problem."
        )
    return [one if one.page else replace(one, page=check.page) for one in findings]


def _crash(codes: Sequence[str], error: str) -> Finding:
    names = ", ".join(codes)
    return Finding(
        CRASHED,
        f"{names} could not run: {error}",
        {"checks": list(codes)},
        "If the message is about your data or model, correct them. Otherwise the check has a "
        "bug: report it to the package that provides the check.",
    )


def _finding_lines(finding: Finding) -> list[str]:
    evidence = ", ".join(f"{name} {_value_text(value)}" for name, value in finding.evidence.items())
    parts = [
        finding.what,
        f"Measured: {evidence}" if evidence else "",
        f"Fix: {finding.fix}",
        f"See: {finding.page}" if finding.page else "",
    ]
    width = _WIDTH - len(_INDENT)
    return [_INDENT + line for part in parts for line in textwrap.wrap(part, width)]


def _value_text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
