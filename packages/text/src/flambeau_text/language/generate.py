"""``generate``: continues token sequences with a language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau_text.decoding.sampling import draw_tokens, filtered_probabilities
from flambeau_text.decoding.strategy import Greedy, Sampling
from flambeau_text.models.language_model import LanguageModel
from flambeau_text.tokenization.tokenizer import BEGIN_ID, PADDING_ID


@dataclass(frozen=True)
class Generated:
    """Generated tokens.

    Attributes:
        tokens: int64 ``(batch, n)``.
        log_probs: Log-probability of each token under the model, ``(batch, n)``.
    """

    tokens: Tensor
    log_probs: Tensor


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: Tensor,
    mask: Tensor,
    n: int,
    strategy: Greedy | Sampling,
    keys: Tensor | None = None,
) -> Generated:
    """Continue each prompt by ``n`` tokens.

    Prompts of equal length are read together, without padding, so that a prompt has the same
    continuation alone and in a batch.

    Args:
        model: The model, in eval mode.
        prompts: int64 ``(batch, longest)``, padded at the end; each has at least one token.
        mask: False at padding, ``(batch, longest)``.
        n: Number of tokens to generate.
        strategy: `Greedy`, or `Sampling` with its temperature and filters.
        keys: A key for the random draws of each prompt, int64 ``(batch,)``; None uses its index.
    """
    lengths = mask.sum(1)
    keys = torch.arange(len(prompts)) if keys is None else keys
    tokens = prompts.new_zeros(len(prompts), n)
    log_probs = torch.zeros(len(prompts), n, device=prompts.device)
    for length in sorted({int(each) for each in lengths}):
        rows = (lengths == length).nonzero().squeeze(1)
        found = _continue(model, prompts[rows, :length], n, strategy, keys.to(prompts.device)[rows])
        tokens[rows], log_probs[rows] = found.tokens, found.log_probs.float()
    return Generated(tokens, log_probs)


def _continue(
    model: LanguageModel, read: Tensor, n: int, strategy: Greedy | Sampling, keys: Tensor
) -> Generated:
    state: Any = None
    tokens: list[Tensor] = []
    log_probs: list[Tensor] = []
    for position in range(n):
        found = model.features(read, state)
        state = found.state
        logits = model.output(found.features[:, -1]).float()
        # Neither is ever a target in training.
        logits[:, [PADDING_ID, BEGIN_ID]] = -torch.inf
        scores = logits.log_softmax(1)
        if isinstance(strategy, Sampling):
            draws = keyed.uniform(strategy.seed, "generation", position, keys, 1).squeeze(1)
            token = draw_tokens(filtered_probabilities(scores, strategy), draws)
        else:
            token = scores.argmax(1)
        tokens.append(token)
        log_probs.append(scores.gather(1, token.unsqueeze(1)).squeeze(1))
        read = token.unsqueeze(1)
    return Generated(torch.stack(tokens, 1), torch.stack(log_probs, 1))
