"""Coins, and what a decoder reads in the place of the true word."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau_text.decoding.sampling import draw
from flambeau_text.forcing.teacher_forcing import TeacherForcing
from flambeau_text.tokenization.tokenizer import BEGIN_ID, PADDING_ID


@dataclass(frozen=True)
class Draws:
    """What keys every draw of a batch.

    Attributes:
        seed: The run's.
        epoch: Epochs since the run began.
        samples: Sample numbers, int64 ``(batch,)``, on the model's device.
    """

    seed: int
    epoch: int
    samples: Tensor

    def uniform(self, purpose: str, count: int) -> Tensor:
        """Numbers in 0..1, ``(batch, count)``, that depend on nothing else."""
        return keyed.uniform(self.seed, purpose, self.epoch, self.samples, count)


def gold_coins(draws: Draws, places: int, p: float, forcing: TeacherForcing) -> Tensor:
    """Where the true word is read, bool ``(batch, places)``; always at the first place."""
    count = places if forcing.granularity == "token" else 1
    coins = draws.uniform("teacher forcing", count) < p
    coins = coins.expand(-1, places).clone()
    coins[:, 0] = True
    return coins


def feed_of(
    logits: Tensor, embedding: Tensor, forcing: TeacherForcing, draws: Draws, place: int
) -> Tensor:
    """Embeddings of what the model reads next, ``(batch, size)``.

    Begin and padding are never read: no answer holds them.

    Args:
        logits: Of the word at ``place``, ``(batch, vocabulary)``.
        embedding: The target words' matrix, ``(vocabulary, size)``.
        forcing: What is fed.
        draws: Keys of the draws.
        place: Which word of the sentence, for the keys.
    """
    scores = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    scores = scores / forcing.temperature
    never = torch.zeros_like(scores[0], dtype=torch.bool)
    never[[PADDING_ID, BEGIN_ID]] = True
    scores = scores.masked_fill(never, -torch.inf)
    if forcing.feed == "argmax":
        return embedding[scores.detach().argmax(1)]
    if forcing.feed == "sample":
        uniform = draws.uniform(f"feed {place}", 1).squeeze(1)
        return embedding[draw(scores.detach().softmax(1), uniform)]
    if forcing.feed == "gumbel":
        uniform = draws.uniform(f"gumbel {place}", scores.shape[1]).to(scores.dtype)
        # Away from 0 and 1, whose logarithms are not finite; the draws are multiples of 2**-24.
        noise = -torch.log(-torch.log(uniform * (1 - 2**-20) + 2**-25))
        soft = (scores + noise).softmax(1)
        hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
        # The word itself forwards, the gradient of the soft draw backwards.
        shares = hard - soft.detach() + soft
    else:
        shares = scores.softmax(1)
    return shares.to(embedding.dtype) @ embedding
