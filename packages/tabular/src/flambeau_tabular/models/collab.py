"""``CollabDot`` and ``CollabNet``: predict how a user rates an item, from learned vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from flambeau.errors import InputError
from flambeau_tabular.models.category_embedding import FIRST_VALUE, UNKNOWN, embedding_width

Range = tuple[float, float] | Sequence[float]


class CodeVectors(nn.Module):
    """The learned vectors of users or items.

    In train mode a small share of the codes becomes unknown, so that the vector of the code 1
    learns what to expect of users and items that were not in train (see ``CategoryEmbedding``).

    Args:
        n_codes: Number of codes, including 0 (missing) and 1 (unknown).
        widths: Widths of the tables that are looked up with the same codes.
        std: Standard deviation of the initial vectors, which are at most two of them.
        unknown_dropout: Probability that a known code becomes unknown in train mode.
    """

    def __init__(
        self, n_codes: int, widths: Sequence[int], *, std: float, unknown_dropout: float
    ) -> None:
        super().__init__()
        if n_codes < FIRST_VALUE or min(widths) < 1:
            raise InputError(
                f"{n_codes} codes with vectors of the widths {list(widths)} are impossible: there "
                "are at least 2 codes (0 missing, 1 unknown), and widths are positive."
            )
        if not 0 <= unknown_dropout < 1:
            raise InputError(
                f"unknown_dropout is {unknown_dropout}, but must be at least 0 and below 1."
            )
        self.unknown_dropout = unknown_dropout
        self.tables = nn.ModuleList()
        for width in widths:
            vectors = torch.empty(n_codes, width)
            nn.init.trunc_normal_(vectors, 0.0, std, a=-2 * std, b=2 * std)
            self.tables.append(nn.Embedding.from_pretrained(vectors, freeze=False))

    def forward(self, codes: Tensor) -> list[Tensor]:
        """Return the vectors ``(batch, width)`` of each table for codes ``(batch,)``."""
        codes = codes.reshape(-1).long()
        if self.training and self.unknown_dropout:
            drawn = torch.rand(codes.shape, device=codes.device) < self.unknown_dropout
            codes = codes.masked_fill(drawn & (codes >= FIRST_VALUE), UNKNOWN)
        return [table(codes) for table in self.tables]


class CollabDot(nn.Module):
    """The scalar product of the vectors of user and item, plus a bias for each and one for all.

    Args:
        n_users: Number of user codes, including 0 (missing) and 1 (unknown).
        n_items: Number of item codes, likewise.
        n_factors: Width of the vectors.
        y_range: Lowest and highest output; a sigmoid maps the sum between them. In the units of the
            outputs: standardised, if the task standardises the targets. Take it a little wider than
            the ratings, since a sigmoid does not reach its bounds. None uses no bounds.
        unknown_dropout: Probability that a known user or item becomes unknown in train mode.

    Raises:
        InputError: A number is out of range.

    Source:
        Koren et al., "Matrix Factorization Techniques for Recommender Systems", 2009, equation 4;
        width, initialisation and the sigmoid as in fastai's ``EmbeddingDotBias``.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        n_factors: int = 50,
        *,
        y_range: Range | None = None,
        unknown_dropout: float = 0.01,
    ) -> None:
        super().__init__()
        self.y_range = _checked_range(y_range)
        widths = [n_factors, 1]
        self.users = CodeVectors(n_users, widths, std=0.01, unknown_dropout=unknown_dropout)
        self.items = CodeVectors(n_items, widths, std=0.01, unknown_dropout=unknown_dropout)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the expected rating ``(batch, 1)`` of integer codes ``(batch,)``."""
        user, user_bias = self.users(users)
        item, item_bias = self.items(items)
        rating = (user * item).sum(dim=1, keepdim=True) + user_bias + item_bias + self.bias
        return _in_range(rating, self.y_range)

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module | nn.Parameter]]:
        """Return the layer groups: the vectors, then the bias of all ratings."""
        return {"vectors": [self.users, self.items], "bias": [self.bias]}


class CollabNet(nn.Module):
    """A multilayer perceptron of the vectors of user and item.

    Args:
        n_users: Number of user codes, including 0 (missing) and 1 (unknown).
        n_items: Number of item codes, likewise.
        widths: Widths of the vectors of users and items; None follows ``embedding_width``.
        hidden: Widths of the hidden layers.
        dropout: Dropout probability of the hidden units.
        y_range: Lowest and highest output; see ``CollabDot``.
        unknown_dropout: Probability that a known user or item becomes unknown in train mode.

    Raises:
        InputError: A number is out of range.

    Source:
        He et al., "Neural Collaborative Filtering", 2017 (arXiv 1708.05031), its MLP; widths as in
        fastai's ``EmbeddingNN``, without batch norm.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        *,
        widths: tuple[int, int] | Sequence[int] | None = None,
        hidden: Sequence[int] = (100, 50),
        dropout: float = 0.1,
        y_range: Range | None = None,
        unknown_dropout: float = 0.01,
    ) -> None:
        super().__init__()
        if not hidden or min(hidden) < 1 or not 0 <= dropout < 1:
            raise InputError(
                f"CollabNet needs positive hidden widths and a dropout from 0 to below 1, but got "
                f"hidden={list(hidden)} and dropout={dropout}."
            )
        self.y_range = _checked_range(y_range)
        user, item = widths or (embedding_width(n_users), embedding_width(n_items))
        self.users = CodeVectors(n_users, [user], std=0.1, unknown_dropout=unknown_dropout)
        self.items = CodeVectors(n_items, [item], std=0.1, unknown_dropout=unknown_dropout)
        layers: list[nn.Module] = []
        for before, after in pairwise([user + item, *hidden]):
            layers += [nn.Linear(before, after), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(hidden[-1], 1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the expected rating ``(batch, 1)`` of integer codes ``(batch,)``."""
        vectors = torch.cat([*self.users(users), *self.items(items)], dim=1)
        return _in_range(self.head(self.body(vectors)), self.y_range)

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups, from input to output."""
        return {"vectors": [self.users, self.items], "body": [self.body], "head": [self.head]}


def collab_dot(
    *,
    n_users: int,
    n_items: int,
    n_factors: int = 50,
    y_range: Range | None = None,
    unknown_dropout: float = 0.01,
) -> CollabDot:
    """Return a ``CollabDot`` from JSON values."""
    return CollabDot(n_users, n_items, n_factors, y_range=y_range, unknown_dropout=unknown_dropout)


def collab_net(
    *,
    n_users: int,
    n_items: int,
    widths: Sequence[int] | None = None,
    hidden: Sequence[int] = (100, 50),
    dropout: float = 0.1,
    y_range: Range | None = None,
    unknown_dropout: float = 0.01,
) -> CollabNet:
    """Return a ``CollabNet`` from JSON values."""
    return CollabNet(
        n_users,
        n_items,
        widths=widths,
        hidden=hidden,
        dropout=dropout,
        y_range=y_range,
        unknown_dropout=unknown_dropout,
    )


def _checked_range(y_range: Range | None) -> tuple[float, float] | None:
    if y_range is None:
        return None
    low, high = y_range
    if not low < high:
        raise InputError(f"y_range is {list(y_range)}, but the first must be below the second.")
    return float(low), float(high)


def _in_range(rating: Tensor, y_range: tuple[float, float] | None) -> Tensor:
    if y_range is None:
        return rating
    low, high = y_range
    return low + (high - low) * rating.sigmoid()
