"""Several documents in one row: which tokens attend to each other, and their positions.

A row is described by the number of the document of each token, int64 ``(rows, positions)``. Tokens
attend to earlier tokens of the same number, so that a document is computed as if it were alone. 0
is the number of padding, which may be anywhere; no other token attends to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

DOCUMENTS = "documents"
"""Name in ``Batch.task_inputs`` of the numbers of the documents of packed rows."""


@dataclass(frozen=True)
class Packing:
    """The attention of the last positions of rows to all of their positions.

    Attributes:
        positions: Position of each token in its document, int64 ``(rows, queries)``.
        mask: True where a token attends to another, bool ``(rows, 1, queries, keys)``, as
            ``scaled_dot_product_attention`` takes it. Every token attends to itself, padding too,
            so that no row of the attention is empty.
    """

    positions: Tensor
    mask: Tensor

    @classmethod
    def of(
        cls, documents: Tensor, queries: int | None = None, window: int | None = None
    ) -> Packing:
        """Return the packing of rows of documents.

        Args:
            documents: Numbers of the documents, int64 ``(rows, keys)``; the tokens of a document
                are consecutive.
            queries: Number of last positions that are computed; None for all.
            window: Number of tokens that a token attends to, itself included; None for all.
        """
        n = documents.shape[1]
        first = n - (n if queries is None else queries)
        place = torch.arange(n, device=documents.device)
        begins = torch.ones_like(documents, dtype=torch.bool)
        begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
        start = (place * begins).cummax(1).values
        distance = place[first:].unsqueeze(1) - place
        mask = documents[:, first:].unsqueeze(2) == documents.unsqueeze(1)
        mask &= distance >= 0
        if window is not None:
            mask &= distance < window
        return cls((place - start)[:, first:], mask.unsqueeze(1))
