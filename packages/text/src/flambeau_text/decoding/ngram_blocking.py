"""``block_repeated_ngrams``: prevents an n-gram from occurring twice in a sentence."""

from __future__ import annotations

import torch
from torch import Tensor


def block_repeated_ngrams(scores: Tensor, tokens: Tensor, n: int) -> Tensor:
    """Return the log-probabilities with -inf for tokens that would repeat an n-gram.

    Args:
        scores: Log-probabilities, ``(rows, vocabulary)``.
        tokens: The tokens so far, int64 ``(rows, length)``.
        n: Length of the n-gram, at least 1.

    Source:
        Paulus, Xiong and Socher, "A Deep Reinforced Model for Abstractive Summarization" (arXiv
        1705.04304), section 2.5.
    """
    length = tokens.shape[1]
    if length < n:
        return scores
    if n == 1:
        followers, repeats = tokens, torch.ones_like(tokens, dtype=torch.bool)
    else:
        prefixes = tokens.unfold(1, n - 1, 1)[:, :-1]  # each is followed by a token
        repeats = (prefixes == tokens[:, -(n - 1) :].unsqueeze(1)).all(-1)
        followers = tokens[:, n - 1 :]
    # scatter_reduce takes the minimum, so a token that repeats at any position stays blocked.
    blocked = torch.where(repeats, -torch.inf, torch.inf).to(scores.dtype)
    return scores.minimum(
        torch.full_like(scores, torch.inf).scatter_reduce(1, followers, blocked, "amin")
    )
