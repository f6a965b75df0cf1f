"""No run of words twice in a sentence."""

from __future__ import annotations

import torch
from torch import Tensor


def block_repeats(found: Tensor, words: Tensor, size: int) -> Tensor:
    """The log-probabilities with -inf for words that would repeat a run of ``size`` words.

    Args:
        found: ``(rows, vocabulary)``.
        words: The words so far, int64 ``(rows, length)``.
        size: Words in a run, at least 1.

    Source:
        Paulus, Xiong and Socher, "A Deep Reinforced Model for Abstractive Summarization" (arXiv
        1705.04304), section 2.5.
    """
    length = words.shape[1]
    if length < size:
        return found
    if size == 1:
        followers, repeats = words, torch.ones_like(words, dtype=torch.bool)
    else:
        runs = words.unfold(1, size - 1, 1)[:, :-1]  # each is followed by a word
        repeats = (runs == words[:, -(size - 1) :].unsqueeze(1)).all(-1)
        followers = words[:, size - 1 :]
    # Where a run does not repeat, the same score is written once more: min of the two.
    blocked = torch.where(repeats, -torch.inf, torch.inf).to(found.dtype)
    return found.minimum(
        torch.full_like(found, torch.inf).scatter_reduce(1, followers, blocked, "amin")
    )
