"""``Reading``: how ambiguous labels, folders or columns of the data were interpreted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

DOUBTFUL_BELOW = 0.5
"""Readings with a confidence below this are doubtful, and the doctor reports them."""


@dataclass(frozen=True)
class Reading:
    """How ambiguous labels, folders or columns were interpreted.

    The readings of a data set are facts (``Facts["readings"]``); each reading is part of the reason
    of one choice of the plan.

    Attributes:
        key: The choice of the plan: "task", "targets" or "split".
        what: The interpretation and its reason, as a sentence with the numbers or names found.
        evidence: The numbers on which the interpretation is based, by name.
        alternatives: Other possible interpretations, as text.
        confidence: From 0 to 1; below ``DOUBTFUL_BELOW`` the interpretation is doubtful.
        override: What to write for another interpretation, in Python and on the command line.
    """

    key: str
    what: str
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])
    alternatives: tuple[str, ...] = ()
    confidence: float = 1.0
    override: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values by name."""
        return {**asdict(self), "alternatives": list(self.alternatives)}

    def __str__(self) -> str:
        if self.confidence >= DOUBTFUL_BELOW:
            return self.what
        return f"doubtful: {self.what} {self.override}".rstrip()


def readings_as_facts(readings: Iterable[Reading]) -> dict[str, Any]:
    """Return ``{"readings": […]}`` as JSON values; empty without readings."""
    found = [reading.to_json() for reading in readings]
    return {"readings": found} if found else {}
