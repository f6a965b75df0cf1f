"""``SearchResult``: the sentences that a search returns for a batch of sources."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flambeau_text.tokenization.tokenizer import PADDING_ID


@dataclass(frozen=True)
class SearchResult:
    """Sentences found for a batch of sources, best first.

    Attributes:
        tokens: int64 ``(batch, n_best, longest)``: each sentence ends with the end token, then
            padding. If fewer than ``n_best`` were found, the last rows of a source are all padding.
        scores: The scores by which the sentences are ranked, ``(batch, n_best)``; -inf for a row
            without a sentence.
        log_probabilities: Sum of the tokens' log-probabilities, the end token included,
            ``(batch, n_best)``.
        attention: Attention weights ``(batch, n_best, longest, source)``, or None if the model
            returns no attention.
    """

    tokens: Tensor
    scores: Tensor
    log_probabilities: Tensor
    attention: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """Number of tokens of each sentence, the end token included: int64 ``(batch, n_best)``."""
        return (self.tokens != PADDING_ID).sum(2)
