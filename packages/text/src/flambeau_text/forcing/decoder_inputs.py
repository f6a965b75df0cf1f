"""Choose the decoder's inputs in training: at random, reference tokens or predictions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.errors import InputError
from flambeau_text.decoding.sampling import draw_tokens
from flambeau_text.forcing.teacher_forcing import TeacherForcing
from flambeau_text.models.seq2seq import Seq2Seq
from flambeau_text.tokenization.tokenizer import BEGIN_ID, PADDING_ID

TOKEN_FEEDS = ("argmax", "sample")
"""Kinds of decoder input that are a token id; other kinds are a weighted mean of embeddings."""


@dataclass(frozen=True)
class DrawKeys:
    """Keys of a batch's random draws, by which a sample's draws do not depend on its batch.

    Attributes:
        seed: The run's seed.
        epoch: Epochs since the run began.
        samples: Sample ids, int64 ``(batch,)``, on the model's device.
    """

    seed: int
    epoch: int
    samples: Tensor

    def uniform(self, purpose: str, count: int) -> Tensor:
        """Draw uniform numbers in [0, 1), ``(batch, count)``, from these keys and ``purpose``."""
        return keyed.uniform(self.seed, purpose, self.epoch, self.samples, count)


def reference_positions(
    keys: DrawKeys, length: int, probability: float, forcing: TeacherForcing
) -> Tensor:
    """Draw the positions at which the decoder reads the reference token.

    Returns:
        bool ``(batch, length)``; the first position, the begin token, is always True.
    """
    count = length if forcing.granularity == "token" else 1
    draws = keys.uniform("teacher forcing", count) < probability
    draws = draws.expand(-1, length).clone()
    draws[:, 0] = True
    return draws


def required_embeddings(model: Seq2Seq, forcing: TeacherForcing) -> Tensor | None:
    """Return the target embedding matrix if ``forcing.feed`` needs it, else None.

    Raises:
        InputError: The feed needs the matrix, but ``model.target_embeddings()`` returns None.
    """
    if forcing.feed in TOKEN_FEEDS:
        return None
    matrix = model.target_embeddings()
    if matrix is None:
        raise InputError(
            f"TeacherForcing(feed={forcing.feed!r}) feeds means of embeddings, but "
            f"{type(model).__name__} takes token ids only: its target_embeddings() returns None. "
            "Return the embedding matrix there and accept embeddings in advance(), or use "
            "feed='argmax' or feed='sample'."
        )
    return matrix


def predicted_input(
    logits: Tensor,
    forcing: TeacherForcing,
    keys: DrawKeys,
    position: int,
    embeddings: Tensor | None = None,
) -> Tensor:
    """Return the decoder's next input, made from its prediction.

    The begin and padding tokens have probability 0, as in decoding.

    Args:
        logits: Logits of the token at ``position``, ``(batch, vocabulary)``.
        forcing: Settings; feed and temperature are used.
        keys: Keys of the random draws.
        position: Position in the target; it is a part of the keys.
        embeddings: ``(vocabulary, size)``, needed by the feeds "gumbel" and "soft".

    Returns:
        Token ids int64 ``(batch,)`` for the feeds "argmax" and "sample", else embeddings
        ``(batch, size)``.
    """
    scores = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    scores = scores / forcing.temperature
    impossible = torch.zeros_like(scores[0], dtype=torch.bool)
    impossible[[PADDING_ID, BEGIN_ID]] = True
    scores = scores.masked_fill(impossible, -torch.inf)
    if forcing.feed == "argmax":
        return scores.detach().argmax(1)
    if forcing.feed == "sample":
        uniform = keys.uniform(f"feed {position}", 1).squeeze(1)
        return draw_tokens(scores.detach().softmax(1), uniform)
    if embeddings is None:
        raise InputError(
            f"The feed {forcing.feed!r} needs the target embedding matrix. Pass "
            "embeddings=model.target_embeddings()."
        )
    if forcing.feed == "gumbel":
        uniform = keys.uniform(f"gumbel {position}", scores.shape[1]).to(scores.dtype)
        # Away from 0 and 1, whose logarithms are not finite; the draws are multiples of 2**-24.
        noise = -torch.log(-torch.log(uniform * (1 - 2**-20) + 2**-25))
        soft = (scores + noise).softmax(1)
        hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
        # Straight-through: the one-hot vector forward, the gradient of the soft draw backward.
        weights = hard - soft.detach() + soft
    else:
        weights = scores.softmax(1)
    return weights.to(embeddings.dtype) @ embeddings
