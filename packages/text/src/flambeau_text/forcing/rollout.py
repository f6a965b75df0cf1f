"""Features of every next word where some of the words before are the model's own."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from flambeau_text.forcing.feeds import Draws, feed_of, gold_coins
from flambeau_text.forcing.teacher_forcing import TeacherForcing
from flambeau_text.models.seq2seq import Memory, Seq2Seq
from flambeau_text.models.transformer import TransformerSeq2Seq


def forced_features(
    model: Seq2Seq, memory: Memory, words: Tensor, p: float, forcing: TeacherForcing, draws: Draws
) -> Tensor:
    """Features ``(batch, target, size)`` for the loss against the true words.

    With ``p`` 1 this is plain teacher forcing, to the bit, and nothing is drawn.

    Args:
        model: In training mode.
        memory: Of the sources.
        words: The true words before, int64 ``(batch, target)`` from the begin token on.
        p: Probability of the true word.
        forcing: What is read otherwise.
        draws: Keys of the draws.
    """
    if p >= 1.0:
        return model.features(memory, words)[0]
    coins = gold_coins(draws, words.shape[1], p, forcing)
    passes = forcing.passes
    if passes is None and isinstance(model, TransformerSeq2Seq):
        passes = 1
    if passes is None:
        return _word_by_word(model, memory, words, coins, forcing, draws)
    return _in_passes(model, memory, words, coins, forcing, draws, passes)


def _word_by_word(
    model: Seq2Seq,
    memory: Memory,
    words: Tensor,
    coins: Tensor,
    forcing: TeacherForcing,
    draws: Draws,
) -> Tensor:
    matrix = cast("Any", model).target_embedding.weight
    true = cast("Any", model).target_embedding(words)
    state = model.init_state(memory)
    found: list[Tensor] = []
    read = true[:, 0]
    for place in range(words.shape[1]):
        features, state, _ = model.advance(read, state)
        found.append(features)
        if place + 1 == words.shape[1]:
            break
        gold = coins[:, place + 1].unsqueeze(1)
        own = feed_of(_logits(model, features, forcing), matrix, forcing, draws, place)
        read = torch.where(gold, true[:, place + 1], own)
    return torch.stack(found, 1)


def _in_passes(
    model: Seq2Seq,
    memory: Memory,
    words: Tensor,
    coins: Tensor,
    forcing: TeacherForcing,
    draws: Draws,
    passes: int,
) -> Tensor:
    """Each pass reads what the one before it predicted; only the last has gradients.

    With a feed that passes gradients the predicting passes keep theirs.
    """
    matrix = cast("Any", model).target_embedding.weight
    true = cast("Any", model).target_embedding(words)
    read = true
    length = words.shape[1]
    learns = forcing.feed in ("gumbel", "soft") and torch.is_grad_enabled()
    for _ in range(passes):
        with torch.set_grad_enabled(learns):
            features, _ = model.features(memory, read)
            own = [
                feed_of(_logits(model, features[:, place], forcing), matrix, forcing, draws, place)
                for place in range(length - 1)
            ]
        shifted = torch.cat([true[:, :1], torch.stack(own, 1)], 1) if own else true
        read = torch.where(coins.unsqueeze(2), true, shifted)
    return model.features(memory, read)[0]


def _logits(model: Seq2Seq, features: Tensor, forcing: TeacherForcing) -> Tensor:
    if forcing.feed in ("argmax", "sample"):
        with torch.no_grad():
            return model.output(features)
    return model.output(features)
