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
    """

    id: int
    loss: float
    target: str = ""
    predicted: str = ""
    probability: float | None = None

    def __str__(self) -> str:
        given = "" if self.probability is None else f" (probability {self.probability:.1%})"
        names = f": target {self.target}{given}, predicted {self.predicted}" if self.target else ""
        return f"sample {self.id}, loss {self.loss:.4g}{names}"
