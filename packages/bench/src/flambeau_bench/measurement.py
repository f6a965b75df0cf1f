"""``Measurement``: what one side did in one timed run, and what it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Measurement:
    """One side of a pair: figures, and the evidence that the work was the same.

    Attributes:
        figures: What was measured by name, units in the names: ``{"slope_us": 231.0}``.
        steps: Optimizer steps (batches, where nothing is trained) that were done.
        items: Samples that were used.
        init_hash: Of the weights before the first step.
        order_hash: Of the batches in the order in which they were used.
        settings: What must agree for two times to compare: dtype, threads, optimizer …
        quality: What the gate looks at: a hash of the losses, an accuracy.
        notes: What a reader should know of this run.
    """

    figures: Mapping[str, float]
    steps: int = 0
    items: int = 0
    init_hash: str = ""
    order_hash: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    quality: Mapping[str, float | str] = field(default_factory=dict[str, float | str])
    notes: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values, so that a fresh process can hand them over."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of ``as_json``."""
        return cls(**values)
