"""``word_by_word``: one sentence a source, each word chosen once and for good."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flambeau_text.decoding.decoded import Decoded, log_probabilities, only_end
from flambeau_text.models.seq2seq import Memory, Seq2Seq
from flambeau_text.tokenization.tokenizer import BEGIN_ID, END_ID, PADDING_ID

Choose = Callable[[Tensor, int], Tensor]


def word_by_word(
    model: Seq2Seq, memory: Memory, limit: Tensor, min_words: int, choose: Choose
) -> Decoded:
    """Goes on until every sentence has ended.

    Args:
        model: In eval mode.
        memory: Of the sources.
        limit: Words that each may have before its end, int64 ``(batch,)``.
        min_words: Words that each must have before its end.
        choose: The next words, int64 ``(batch,)``, from log-probabilities ``(batch, vocabulary)``
            and the place in the sentence.

    Returns:
        Scores are the log-probabilities under the model.
    """
    batch, device = len(memory.mask), memory.mask.device
    previous = torch.full((batch,), BEGIN_ID, device=device)
    done = torch.zeros(batch, dtype=torch.bool, device=device)
    state = model.init_state(memory)
    tokens: list[Tensor] = []
    scores: list[Tensor] = []
    attended: list[Tensor] = []
    for place in range(int(limit.max()) + 1):
        logits, state, attention = model.step(previous, state)
        found = log_probabilities(logits)
        if place < min_words:
            found[:, END_ID] = -torch.inf
        found = only_end(found, limit <= place)
        word = choose(found, place)
        score = found.gather(1, word.unsqueeze(1)).squeeze(1)
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
