"""What a translation model answers with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Translation:
    """One sentence in the other language; as text where it is printed.

    Attributes:
        text: The sentence, joined from its tokens.
        score: What the search ranked it by: for a beam the log-probability over its length
            penalty.
    """

    text: str
    score: float

    def __str__(self) -> str:
        return self.text
