"""``Finding``: a likely mistake in a training setup, with its evidence and its fix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["warning", "error"]


@dataclass(frozen=True)
class Finding:
    """A likely mistake that a check has found.

    Attributes:
        code: Short name that stays the same between releases ("class-not-in-train").
        what: One sentence that describes the problem and names the value, row or layer.
        evidence: The measured values behind the finding, by name.
        fix: What to change, as code where possible.
        page: A page of the documentation that explains the problem, if there is one.
        severity: "error" if training cannot give a useful model, "warning" if it can.
    """

    code: str
    what: str
    evidence: Mapping[str, Any]
    fix: str
    page: str | None = None
    severity: Severity = "warning"
