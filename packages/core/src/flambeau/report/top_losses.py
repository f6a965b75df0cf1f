"""``TopLoss``: a sample with a high loss."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TopLoss:
    """A sample with a high loss.

    Attributes:
        id: Index of the sample, as in ``data.split``.
        loss: Loss of this sample alone.
        target: The target as text; empty if the kind of task is unknown or the sample is ignored.
        predicted: The prediction as text.
        probability: Predicted probability of the target class, 0..1; None for other tasks.
        source: Number of the sample in the source, see ``data.source_rows``; None if it is ``id``.
    """

    id: int
    loss: float
    target: str = ""
    predicted: str = ""
    probability: float | None = None
    source: int | None = None

    @property
    def number(self) -> int:
        """The number of the sample in the source, which counts samples that were left out too."""
        return self.id if self.source is None else self.source

    def __str__(self) -> str:
        given = "" if self.probability is None else f" (probability {self.probability:.1%})"
        names = f": target {self.target}{given}, predicted {self.predicted}" if self.target else ""
        return f"sample {self.number}, loss {self.loss:.4g}{names}"
