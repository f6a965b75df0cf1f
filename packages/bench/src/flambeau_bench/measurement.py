"""``Measurement``: what one side did in one timed run, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Measurement:
    """The run of one side: its figures, and values that show whether both sides did the same work.

    Attributes:
        figures: Measured values by name, with the unit in the name: ``{"slope_us": 231.0}``.
        steps: Number of optimizer steps, or of batches if nothing is trained.
        samples: Number of samples that were used.
        init_hash: Hash of the weights before the first step.
        order_hash: Hash of the batches in the order in which they were used.
        settings: Settings that must be equal on both sides: dtype, threads, optimizer …
        quality: The values that the quality condition compares: a hash of the losses, an accuracy.
        notes: What a reader should know about this run.
        versions: Versions of the libraries of a side that runs in a separate interpreter.
    """

    figures: Mapping[str, float]
    steps: int = 0
    samples: int = 0
    init_hash: str = ""
    order_hash: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    quality: Mapping[str, float | str] = field(default_factory=dict[str, float | str])
    notes: str = ""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])

    def as_json(self) -> dict[str, Any]:
        """Return plain values, so that a measurement can be passed between processes."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return a measurement from the result of ``as_json``."""
        return cls(**values)
