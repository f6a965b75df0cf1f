"""``search``: a strategy's sentences for sources."""

from __future__ import annotations

import torch
from torch import Tensor

from flambeau.errors import ArgumentError
from flambeau_text.decoding.beam import beam_search
from flambeau_text.decoding.decoded import Decoded, limits
from flambeau_text.decoding.greedy import greedy_search
from flambeau_text.decoding.sampling import sample
from flambeau_text.decoding.strategy import Beam, Greedy, Sampling, Strategy
from flambeau_text.models.seq2seq import Seq2Seq


@torch.no_grad()
def search(
    model: Seq2Seq,
    source: Tensor,
    mask: Tensor,
    strategy: Strategy,
    numbers: Tensor | None = None,
) -> Decoded:
    """Sentences for sources, in their order.

    Args:
        model: In eval mode.
        source: Token numbers, int64 ``(batch, source)``.
        mask: bool ``(batch, source)``, True where a token counts.
        strategy: How to look.
        numbers: What keys each source's draws where the strategy draws, int64 ``(batch,)``.

    Raises:
        ArgumentError: The strategy is none of the known ones.
    """
    memory = model.encode(source, mask)
    limit = limits(mask, strategy.max_factor, strategy.max_extra)
    if isinstance(strategy, Greedy):
        return greedy_search(model, memory, limit, strategy.min_words)
    if isinstance(strategy, Beam):
        return beam_search(model, memory, limit, strategy)
    if isinstance(strategy, Sampling):
        return sample(model, memory, limit, strategy, numbers)
    raise ArgumentError(f"There is no search for {strategy!r:.60}: give Greedy, Beam or Sampling.")
