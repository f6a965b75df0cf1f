"""``generate``: continues token sequences with a language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.errors import InputError
from flambeau_text.decoding.sampling import draw_tokens, filtered_probabilities
from flambeau_text.decoding.strategy import Greedy, Sampling
from flambeau_text.models.language_model import LanguageModel
from flambeau_text.tokenization.tokenizer import SpecialIds

_OWN = SpecialIds()


@dataclass(frozen=True)
class Generated:
    """Generated tokens.

    Attributes:
        tokens: int64 ``(batch, n)``, padding after the end of a row.
        log_probs: Log-probability of each token under the model, ``(batch, n)``, 0 at padding.
        lengths: Number of tokens of each row, a stop token included, int64 ``(batch,)``.
    """

    tokens: Tensor
    log_probs: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class StopRule:
    """When the text of a row ends.

    Attributes:
        tokens: Ids that end it.
        ended: Called with the tokens of a row so far; True ends it. None for no further rule.
    """

    tokens: tuple[int, ...] = ()
    ended: Callable[[Sequence[int]], bool] | None = None


_NEVER = StopRule()


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: Tensor,
    mask: Tensor,
    n: int,
    strategy: Greedy | Sampling,
    keys: Tensor | None = None,
    *,
    special: SpecialIds = _OWN,
    stop: StopRule = _NEVER,
) -> Generated:
    """Continue each prompt by at most ``n`` tokens.

    A prompt has the same continuation alone and in a batch: a model that reads padding gets all
    prompts at once, padded on the left; of another one those of equal length are read together.

    Args:
        model: The model, in eval mode.
        prompts: int64 ``(batch, longest)``, padded at the end; each has at least one token.
        mask: False at padding, ``(batch, longest)``.
        n: Maximum number of tokens to generate.
        strategy: `Greedy`, or `Sampling` with its temperature and filters.
        keys: A key for the random draws of each prompt, int64 ``(batch,)``; None uses its index.
        special: Ids of padding and of the tokens that are never generated.
        stop: When a text ends; by default it has ``n`` tokens.

    Raises:
        InputError: Prompt and continuation are longer than the model's number of positions.
    """
    lengths = mask.sum(1)
    keys = (torch.arange(len(prompts)) if keys is None else keys).to(prompts.device)
    found = Generated(
        prompts.new_full((len(prompts), n), special.padding),
        torch.zeros(len(prompts), n, device=prompts.device),
        prompts.new_zeros(len(prompts)),
    )
    for rows in _read_together(model, lengths):
        longest = int(lengths[rows].max())
        read, is_token = _left_padded(prompts[rows, :longest], lengths[rows])
        steps = list(
            generate_steps(
                model, read, is_token, n, strategy, keys[rows], special=special, stop=stop
            )
        )
        for position, (tokens, log_probs, active) in enumerate(steps):
            found.tokens[rows, position] = tokens
            found.log_probs[rows, position] = log_probs
            found.lengths[rows] += active
    return found


@torch.no_grad()
def generate_steps(
    model: LanguageModel,
    read: Tensor,
    mask: Tensor,
    n: int,
    strategy: Greedy | Sampling,
    keys: Tensor,
    *,
    special: SpecialIds = _OWN,
    stop: StopRule = _NEVER,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the tokens of each position as they are generated, until all rows have ended.

    Args:
        model: As for `generate`.
        read: Prompts, int64 ``(batch, longest)``, padded on the left.
        mask: False at padding.
        n: As for `generate`.
        strategy: As for `generate`.
        keys: As for `generate`.
        special: As for `generate`.
        stop: As for `generate`.

    Returns:
        For each position: tokens, int64 ``(batch,)``, their log-probabilities, and whether the row
        had not ended before; rows that had have padding.
    """
    _check_length(model, read.shape[1], n)
    state: Any = None
    active = torch.ones(len(read), dtype=torch.bool, device=read.device)
    before: list[list[int]] = [[] for _ in read]
    stops = read.new_tensor(stop.tokens)
    padded = not bool(mask.all())
    for position in range(n):
        if position == 0 and padded:
            found = model.padded_features(read, mask)
        else:
            found = model.features(read, state)
        state = found.state
        logits = model.output(found.features[:, -1]).float()
        # They are never a target in training.
        logits[:, list(special.never)] = -torch.inf
        scores = logits.log_softmax(1)
        if isinstance(strategy, Sampling):
            draws = keyed.uniform(strategy.seed, "generation", position, keys, 1).squeeze(1)
            token = draw_tokens(filtered_probabilities(scores, strategy), draws)
        else:
            token = scores.argmax(1)
        token = token.masked_fill(~active, special.padding)
        chosen = scores.gather(1, token.unsqueeze(1)).squeeze(1).masked_fill(~active, 0.0)
        yield token, chosen, active
        active = active & ~torch.isin(token, stops)
        if stop.ended is not None:
            for row, each in enumerate(token.tolist()):
                before[row].append(each)
                if active[row] and stop.ended(before[row]):
                    active[row] = False
        if (stop.tokens or stop.ended is not None) and not bool(active.any()):
            return
        read = token.unsqueeze(1)


def _read_together(model: LanguageModel, lengths: Tensor) -> list[Tensor]:
    """Return the rows that are read at once, int64 indices."""
    if model.reads_padding:
        return [torch.arange(len(lengths), device=lengths.device)] if len(lengths) else []
    return [
        (lengths == length).nonzero().squeeze(1)
        for length in sorted({int(each) for each in lengths})
    ]


def _left_padded(prompts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return prompts with their padding on the left, and the mask of their tokens."""
    longest = prompts.shape[1]
    at = torch.arange(longest, device=prompts.device) - (longest - lengths.unsqueeze(1))
    return prompts.gather(1, at.remainder(longest)), at >= 0


def _check_length(model: LanguageModel, longest: int, n: int) -> None:
    limit = model.max_positions
    if limit is not None and longest + n > limit:
        raise InputError(
            f"The prompt has {longest:,} tokens and {n:,} are to be generated, but the model has "
            f"only {limit:,} positions. Shorten the prompt, or generate at most "
            f"{max(0, limit - longest):,} tokens (max_tokens, --max-tokens)."
        )
