"""``sample``: words drawn by their probability."""

from __future__ import annotations

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau_text.decoding.decoded import Decoded
from flambeau_text.decoding.strategy import Sampling
from flambeau_text.decoding.word_by_word import word_by_word
from flambeau_text.models.seq2seq import Memory, Seq2Seq


def sample(
    model: Seq2Seq,
    memory: Memory,
    limit: Tensor,
    sampling: Sampling,
    numbers: Tensor | None = None,
) -> Decoded:
    """One sentence a source, drawn word by word.

    Args:
        model: In eval mode.
        memory: Of the sources.
        limit: Words that each may have before its end, int64 ``(batch,)``.
        sampling: Temperature, filters and seed.
        numbers: What keys each source's draws, int64 ``(batch,)``; its place in the batch where
            None.

    Returns:
        Scores are log-probabilities under the model, not under the filtered distribution.
    """
    numbers = torch.arange(len(memory.mask)) if numbers is None else numbers
    numbers = numbers.to(memory.mask.device)

    def choose(found: Tensor, place: int) -> Tensor:
        draws = keyed.uniform(sampling.seed, "sampling", place, numbers, 1)
        return draw(filtered(found, sampling), draws.squeeze(1))

    return word_by_word(model, memory, limit, sampling.min_words, choose)


def filtered(found: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities ``(rows, vocabulary)`` after temperature and filters; each row sums to 1.

    Source:
        top-k: Fan, Lewis and Dauphin (arXiv 1805.04833); top-p: Holtzman et al. (arXiv
        1904.09751); min-p: Nguyen et al. (arXiv 2407.01082).
    """
    logits = found / sampling.temperature
    if sampling.top_k:
        least = logits.topk(min(sampling.top_k, logits.shape[1]), dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p < 1.0:
        shares, order = logits.softmax(1).sort(dim=1, descending=True, stable=True)
        before = shares.cumsum(1) - shares
        outside = (before >= sampling.top_p).scatter(1, order, before >= sampling.top_p)
        logits = logits.masked_fill(outside, -torch.inf)
    shares = logits.softmax(1)
    if sampling.min_p:
        low = shares < sampling.min_p * shares.max(1, keepdim=True).values
        shares = shares.masked_fill(low, 0.0)
    return shares / shares.sum(1, keepdim=True)


def draw(shares: Tensor, uniform: Tensor) -> Tensor:
    """The word at which the shares add up to more than a number in 0..1: int64 ``(rows,)``.

    One number a word, so that draws can be keyed; the same as ``torch.multinomial`` in law.
    """
    total = shares.double().cumsum(1)
    wanted = uniform.double().unsqueeze(1) * total[:, -1:]
    word = torch.searchsorted(total, wanted, right=True).squeeze(1)
    # Rounding could step past the last word that has a share.
    last = shares.shape[1] - 1 - (shares.flip(1) > 0).to(torch.int8).argmax(1)
    return word.minimum(last)
