"""``content_keys``: keys of random draws for texts that have no sample numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def content_keys(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return a key for the random draws of each text, computed from its tokens, int64 ``(n,)``.

    Texts to predict have no sample ids, and their positions depend on the batches.

    Args:
        tokens: int64 ``(n, positions)``.
        mask: False at padding, ``(n, positions)``.
    """
    keys = torch.zeros(len(tokens), dtype=torch.int64, device=tokens.device)
    for column, is_token in zip(tokens.unbind(1), mask.unbind(1), strict=True):
        keys = torch.where(is_token, (keys * 1_000_003 + column) % 2**31, keys)
    return keys
