"""``Finding``: one thing that very likely is not what was meant, and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["warning", "error"]


@dataclass(frozen=True)
class Finding:
    """What a check saw.

    Attributes:
        code: Its short name, which stays the same between releases ("class-not-in-train").
        what: One sentence that names the offending value, row or layer.
        evidence: The measured figures behind it, by name.
        mend: What to write or change.
        page: A page of the documentation with the whole story, where there is one.
        severity: "error" where training cannot give a useful model, "warning" where it may.
    """

    code: str
    what: str
    evidence: Mapping[str, Any]
    mend: str
    page: str | None = None
    severity: Severity = "warning"
