"""``sample``: one sentence per source, its tokens drawn from the model's probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau_text.decoding.result import SearchResult
from flambeau_text.decoding.strategy import Sampling
from flambeau_text.decoding.token_by_token import decode_token_by_token
from flambeau_text.models.seq2seq import Memory, Seq2Seq


def sample(
    model: Seq2Seq,
    memory: Memory,
    limit: Tensor,
    sampling: Sampling,
    sample_keys: Tensor | None = None,
) -> SearchResult:
    """Draw one sentence per source.

    Args:
        model: The model, in eval mode.
        memory: The encoded sources.
        limit: Maximum number of tokens before the end token, int64 ``(batch,)``.
        sampling: Temperature, filters and seed.
        sample_keys: A key for the random draws of each source, int64 ``(batch,)``; None uses the
            source's index in the batch.

    Returns:
        Sentences whose scores are log-probabilities under the model, not under the filtered
        distribution.
    """
    keys = torch.arange(len(memory.mask)) if sample_keys is None else sample_keys
    keys = keys.to(memory.mask.device)

    def choose(scores: Tensor, position: int) -> Tensor:
        draws = keyed.uniform(sampling.seed, "sampling", position, keys, 1)
        return draw_tokens(filtered_probabilities(scores, sampling), draws.squeeze(1))

    return decode_token_by_token(model, memory, limit, sampling.min_length, choose)


def filtered_probabilities(scores: Tensor, sampling: Sampling) -> Tensor:
    """Return the probabilities after temperature and filters; each row sums to 1.

    Args:
        scores: Log-probabilities, ``(rows, vocabulary)``.
        sampling: Temperature and filters.

    Source:
        top-k: Fan, Lewis and Dauphin (arXiv 1805.04833); top-p: Holtzman et al. (arXiv
        1904.09751); min-p: Nguyen et al. (arXiv 2407.01082).
    """
    logits = scores / sampling.temperature
    if sampling.top_k:
        lowest = logits.topk(min(sampling.top_k, logits.shape[1]), dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, -torch.inf)
    if sampling.top_p < 1.0:
        ranked, order = logits.softmax(1).sort(dim=1, descending=True, stable=True)
        before = ranked.cumsum(1) - ranked
        outside = (before >= sampling.top_p).scatter(1, order, before >= sampling.top_p)
        logits = logits.masked_fill(outside, -torch.inf)
    probabilities = logits.softmax(1)
    if sampling.min_p:
        low = probabilities < sampling.min_p * probabilities.max(1, keepdim=True).values
        probabilities = probabilities.masked_fill(low, 0.0)
    return probabilities / probabilities.sum(1, keepdim=True)


def draw_tokens(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Draw one token per row by inverting the cumulative distribution, int64 ``(rows,)``.

    The tokens have the same distribution as those of ``torch.multinomial``, but the random numbers
    are an argument, so that the caller determines them.

    Args:
        probabilities: ``(rows, vocabulary)``.
        uniform: One uniform random number in [0, 1) per row, ``(rows,)``.
    """
    total = probabilities.double().cumsum(1)
    wanted = uniform.double().unsqueeze(1) * total[:, -1:]
    token = torch.searchsorted(total, wanted, right=True).squeeze(1)
    # Rounding could give a token after the last one with a probability above 0.
    last = probabilities.shape[1] - 1 - (probabilities.flip(1) > 0).to(torch.int8).argmax(1)
    return token.minimum(last)
