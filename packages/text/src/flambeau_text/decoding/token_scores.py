"""Log-probabilities of tokens and sentences, and the length limits that every search applies."""

from __future__ import annotations

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau_text.decoding.strategy import Strategy
from flambeau_text.models.seq2seq import Memory, Seq2Seq
from flambeau_text.tokenization.tokenizer import BEGIN_ID, END_ID, PADDING_ID


def max_lengths(mask: Tensor, factor: float, extra: int) -> Tensor:
    """Return the maximum number of target tokens before the end token, int64 ``(batch,)``.

    It is ``floor(factor × source tokens) + extra``. The tokens of a source do not include padding,
    so the other sources of the batch have no effect.

    Args:
        mask: bool ``(batch, source)``, True at tokens.
        factor: Maximum number of target tokens per source token.
        extra: Number of target tokens allowed in addition.
    """
    return (mask.sum(1).double() * factor).floor().long() + extra


def length_limits(mask: Tensor, strategy: Strategy) -> Tensor:
    """Return the maximum number of target tokens of each source, int64 ``(batch,)``.

    Raises:
        InputError: The limit of a source is less than the minimum length.
    """
    limit = max_lengths(mask, strategy.max_length_factor, strategy.max_length_extra)
    if strategy.min_length and (shortest := int(limit.min())) < strategy.min_length:
        raise InputError(
            f"min_length is {strategy.min_length}, but the translation of a source of "
            f"{int(mask.sum(1).min())} tokens may have at most {shortest} tokens "
            "(max_length_factor × source tokens + max_length_extra). Give a smaller min_length, "
            "or a larger max_length_extra."
        )
    return limit


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log-probabilities in float32 or wider, with -inf for the begin and padding tokens.

    The other tokens are not renormalised, so that a sentence's score is its log-probability under
    the model.
    """
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    found = logits.log_softmax(-1)
    found[..., PADDING_ID] = -torch.inf
    found[..., BEGIN_ID] = -torch.inf
    return found


def allow_only_end(scores: Tensor, rows: Tensor) -> Tensor:
    """Return the log-probabilities with -inf for all tokens but the end token in given rows.

    Args:
        scores: Log-probabilities, ``(rows, vocabulary)``.
        rows: bool ``(rows,)``, True where the sentence must end.
    """
    end = scores[..., END_ID].clone()
    scores = scores.masked_fill(rows.unsqueeze(-1), -torch.inf)
    scores[..., END_ID] = end
    return scores


def sequence_log_probabilities(model: Seq2Seq, memory: Memory, tokens: Tensor) -> Tensor:
    """Return the log-probability of each given sentence, computed in one teacher-forced pass.

    Args:
        model: The model, in eval mode.
        memory: The encoded sources.
        tokens: int64 ``(batch, longest)``; each row ends with the end token, then padding.

    Returns:
        ``(batch,)``: for each sentence the sum over its tokens, the end token included.
    """
    begin = torch.full_like(tokens[:, :1], BEGIN_ID)
    features, _ = model.features(memory, torch.cat([begin, tokens[:, :-1]], 1))
    logits = model.output(features)
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    found = logits.log_softmax(-1).gather(2, tokens.unsqueeze(2)).squeeze(2)
    return found.masked_fill(tokens == PADDING_ID, 0.0).sum(1)
