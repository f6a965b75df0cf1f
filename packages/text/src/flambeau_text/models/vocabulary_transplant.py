"""Move the vectors of a vocabulary to another one: by token, with the mean for new tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def row_sources(tokens: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return for each token its index in another vocabulary; -1 if it is not in it.

    Args:
        tokens: The tokens of the new vocabulary.
        known: The tokens of the vocabulary whose vectors are moved.

    Example:
        >>> row_sources(["<unk>", "dog", "cat"], ["<unk>", "cat"])
        [0, -1, 1]
    """
    index = {token: number for number, token in enumerate(known)}
    return [index.get(token, -1) for token in tokens]


def transplanted(values: Tensor, sources: Sequence[int]) -> Tensor:
    """Return the rows of a new vocabulary: those of known tokens, and the mean row for new ones.

    Args:
        values: A row per token of the known vocabulary: vectors ``(known, size)`` of an embedding
            or an output layer, or its biases ``(known,)``.
        sources: For each new token its index in the known vocabulary, or -1.

    Source:
        Howard and Ruder (arXiv 1801.06146); the mean over all known tokens, as in their code.
    """
    at = torch.tensor(list(sources), dtype=torch.int64)
    is_known = (at >= 0).view(-1, *[1] * (values.ndim - 1))
    mean = values.double().mean(0, keepdim=True).to(values.dtype)
    return torch.where(is_known, values[at.clamp(min=0)], mean)
