"""``greedy_search``: the most probable token at each position."""

from __future__ import annotations

from torch import Tensor

from flambeau_text.decoding.result import SearchResult
from flambeau_text.decoding.token_by_token import decode_token_by_token
from flambeau_text.models.seq2seq import Memory, Seq2Seq


def greedy_search(
    model: Seq2Seq, memory: Memory, limit: Tensor, min_length: int = 0
) -> SearchResult:
    """Return one sentence per source; of equally probable tokens, the lowest id is chosen.

    Args:
        model: The model, in eval mode.
        memory: The encoded sources.
        limit: Maximum number of tokens before the end token, int64 ``(batch,)``.
        min_length: Minimum number of tokens before the end token.
    """
    return decode_token_by_token(
        model, memory, limit, min_length, lambda scores, position: scores.argmax(1)
    )
