"""``Decoded``: what a search has found, and how it is scored again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flambeau_text.models.seq2seq import Memory, Seq2Seq
from flambeau_text.tokenization.tokenizer import BEGIN_ID, END_ID, PADDING_ID


@dataclass(frozen=True)
class Decoded:
    """Sentences found for a batch of sources, the best first.

    Attributes:
        tokens: int64 ``(batch, n_best, longest)``: the end token included, then padding. A place
            for which nothing was found is padding throughout, and its score is -inf.
        scores: ``(batch, n_best)``: what the search ranks by.
        likelihoods: ``(batch, n_best)``: the sum of the words' log-probabilities, end included.
        attention: ``(batch, n_best, longest, source)``, or None where the model gives none.
    """

    tokens: Tensor
    scores: Tensor
    likelihoods: Tensor
    attention: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """Words of each sentence, the end included: int64 ``(batch, n_best)``."""
        return (self.tokens != PADDING_ID).sum(2)


def limits(mask: Tensor, factor: float, extra: int) -> Tensor:
    """How many words each answer may have before its end, int64 ``(batch,)``.

    By each source's own length, so that what stands beside it in a batch changes nothing.
    """
    return (mask.sum(1).double() * factor).floor().long() + extra


def log_probabilities(logits: Tensor) -> Tensor:
    """Of every word, float32 or wider; what can never be answered (begin, padding) is -inf.

    The others are not scaled up for it: a sentence's score is what the model gives it.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    found = logits.log_softmax(-1)
    found[..., PADDING_ID] = -torch.inf
    found[..., BEGIN_ID] = -torch.inf
    return found


def only_end(found: Tensor, rows: Tensor) -> Tensor:
    """Where ``rows`` is True, nothing but the end is possible; its probability stays as it is."""
    end = found[..., END_ID].clone()
    found = found.masked_fill(rows.unsqueeze(-1), -torch.inf)
    found[..., END_ID] = end
    return found


def score_forced(model: Seq2Seq, memory: Memory, tokens: Tensor) -> Tensor:
    """Log-probabilities of given sentences, computed with all words at once.

    Args:
        model: In eval mode.
        memory: Of the sources.
        tokens: int64 ``(batch, longest)``, ending in the end token and padding.

    Returns:
        ``(batch,)``, the sum over each sentence's words, its end included.
    """
    begin = torch.full_like(tokens[:, :1], BEGIN_ID)
    features, _ = model.features(memory, torch.cat([begin, tokens[:, :-1]], 1))
    found = model.output(features)
    found = found.float() if found.dtype in (torch.float16, torch.bfloat16) else found
    words = found.log_softmax(-1).gather(2, tokens.unsqueeze(2)).squeeze(2)
    return words.masked_fill(tokens == PADDING_ID, 0.0).sum(1)
