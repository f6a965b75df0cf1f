"""``search``: decode a batch of sources with a strategy."""

from __future__ import annotations

import torch
from torch import Tensor

from flambeau.errors import ArgumentError
from flambeau_text.decoding.beam import beam_search
from flambeau_text.decoding.greedy import greedy_search
from flambeau_text.decoding.result import SearchResult
from flambeau_text.decoding.sampling import sample
from flambeau_text.decoding.strategy import Beam, Greedy, Sampling, Strategy
from flambeau_text.decoding.token_scores import length_limits
from flambeau_text.models.seq2seq import Seq2Seq


@torch.no_grad()
def search(
    model: Seq2Seq,
    source: Tensor,
    mask: Tensor,
    strategy: Strategy,
    sample_keys: Tensor | None = None,
) -> SearchResult:
    """Decode a batch of sources; the results have the order of the sources.

    Args:
        model: The model, in eval mode.
        source: Token ids, int64 ``(batch, source)``.
        mask: bool ``(batch, source)``, True at tokens.
        strategy: ``Greedy``, ``Beam`` or ``Sampling``.
        sample_keys: A key for the random draws of each source, int64 ``(batch,)``, used by
            ``Sampling``.

    Raises:
        ArgumentError: The strategy has another type.
    """
    memory = model.encode(source, mask)
    limit = length_limits(mask, strategy)
    if isinstance(strategy, Greedy):
        return greedy_search(model, memory, limit, strategy.min_length)
    if isinstance(strategy, Beam):
        return beam_search(model, memory, limit, strategy)
    if isinstance(strategy, Sampling):
        return sample(model, memory, limit, strategy, sample_keys)
    raise ArgumentError(f"Unknown strategy {strategy!r:.60}. Use Greedy, Beam or Sampling.")
