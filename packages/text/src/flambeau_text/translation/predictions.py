"""``Translation``: the prediction of a translation model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Translation:
    """A translated sentence; ``str()`` returns its text.

    Attributes:
        text: The sentence, joined from its tokens.
        score: The score by which the search ranked it; for beam search the log-probability divided
            by the length penalty.
    """

    text: str
    score: float

    def __str__(self) -> str:
        return self.text
