"""``greedy_search``: the most probable word, again and again."""

from __future__ import annotations

import torch
from torch import Tensor

from flambeau_text.decoding.decoded import Decoded, log_probabilities, only_end
from flambeau_text.models.seq2seq import Memory, Seq2Seq
from flambeau_text.tokenization.tokenizer import BEGIN_ID, END_ID, PADDING_ID


def greedy_search(model: Seq2Seq, memory: Memory, limit: Tensor, min_words: int = 0) -> Decoded:
    """One sentence a source, word by word; of equal words the one with the lower number.

    Args:
        model: In eval mode.
        memory: Of the sources.
        limit: Words that each may have before its end, int64 ``(batch,)``.
        min_words: Words that each must have before its end.
    """
    batch = len(memory.mask)
    previous = torch.full((batch,), BEGIN_ID, device=memory.mask.device)
    done = torch.zeros(batch, dtype=torch.bool, device=memory.mask.device)
    state = model.init_state(memory)
    tokens: list[Tensor] = []
    scores: list[Tensor] = []
    attended: list[Tensor] = []
    for place in range(int(limit.max()) + 1):
        logits, state, attention = model.step(previous, state)
        found = log_probabilities(logits)
        if place < min_words:
            found[:, END_ID] = -torch.inf
        score, word = only_end(found, limit <= place).max(-1)
        tokens.append(word.masked_fill(done, PADDING_ID))
        scores.append(score.masked_fill(done, 0.0))
        if attention is not None:
            attended.append(attention.masked_fill(done.unsqueeze(1), 0.0))
        done = done | (word == END_ID)
        if bool(done.all()):
            break
        previous = word
    total = torch.stack(scores, 1).sum(1, keepdim=True)
    weights = torch.stack(attended, 1).unsqueeze(1) if attended else None
    return Decoded(torch.stack(tokens, 1).unsqueeze(1), total, total, weights)
