"""``Translation``: the prediction of a translation model, and its details."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


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


@dataclass(frozen=True, eq=False)
class DetailedTranslation(Translation):
    """A translation with its tokens, its attention and its alternatives.

    Attributes:
        source_tokens: Tokens of the source, the end token included.
        tokens: Tokens of the translation, the end token included.
        attention: Attention weights ``(tokens, source_tokens)``; None if the model returns none.
        alternatives: The next best translations, if the strategy returns several.
    """

    source_tokens: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    attention: Tensor | None = field(default=None, repr=False)
    alternatives: tuple[Translation, ...] = ()
