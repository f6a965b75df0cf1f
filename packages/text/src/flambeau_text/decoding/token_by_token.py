"""``decode_token_by_token``: one hypothesis per source, extended by one chosen token per step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flambeau_text.decoding.result import SearchResult
from flambeau_text.decoding.token_scores import allow_only_end, log_probabilities
from flambeau_text.models.seq2seq import Memory, Seq2Seq
from flambeau_text.tokenization.tokenizer import BEGIN_ID, END_ID, PADDING_ID

ChooseToken = Callable[[Tensor, int], Tensor]


def decode_token_by_token(
    model: Seq2Seq, memory: Memory, limit: Tensor, min_length: int, choose: ChooseToken
) -> SearchResult:
    """Decode until every sentence has ended.

    Args:
        model: The model, in eval mode.
        memory: The encoded sources.
        limit: Maximum number of tokens before the end token, int64 ``(batch,)``.
        min_length: Minimum number of tokens before the end token.
        choose: Called with log-probabilities ``(batch, vocabulary)`` and the position; returns the
            next tokens, int64 ``(batch,)``.

    Returns:
        One sentence per source; its score is its log-probability under the model.
    """
    batch, device = len(memory.mask), memory.mask.device
    previous = torch.full((batch,), BEGIN_ID, device=device)
    done = torch.zeros(batch, dtype=torch.bool, device=device)
    state = model.init_state(memory)
    tokens: list[Tensor] = []
    scores: list[Tensor] = []
    attended: list[Tensor] = []
    for position in range(int(limit.max()) + 1):
        logits, state, attention = model.step(previous, state)
        found = log_probabilities(logits)
        if position < min_length:
            found[:, END_ID] = -torch.inf
        found = allow_only_end(found, limit <= position)
        token = choose(found, position)
        score = found.gather(1, token.unsqueeze(1)).squeeze(1)
        tokens.append(token.masked_fill(done, PADDING_ID))
        scores.append(score.masked_fill(done, 0.0))
        if attention is not None:
            attended.append(attention.masked_fill(done.unsqueeze(1), 0.0))
        done = done | (token == END_ID)
        if bool(done.all()):
            break
        previous = token
    total = torch.stack(scores, 1).sum(1, keepdim=True)
    weights = torch.stack(attended, 1).unsqueeze(1) if attended else None
    return SearchResult(torch.stack(tokens, 1).unsqueeze(1), total, total, weights)
