"""Embeddings of numbers: periodic (PLR, PBLD) and piecewise linear (PLE), and the edges of PLE.

Each embedding turns scaled numbers ``(batch, n_numbers)`` into ``(batch, n_numbers, width)``, with
weights of its own for each number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from flambeau.errors import InputError


def ple_edges(numbers: np.ndarray, n_bins: int = 48) -> list[list[float]]:
    """Return the bin edges of each column for ``PiecewiseLinearEmbedding``: its quantiles.

    Args:
        numbers: The scaled numbers of the train rows, ``(rows, n_numbers)``, without NaN.
        n_bins: Largest number of bins; equal quantiles count once, so a column with few distinct
            values has fewer.

    Returns:
        For each column at least two increasing edges, exact in float32.

    Raises:
        InputError: There are no rows, ``n_bins`` is below 1, or a number is not finite.

    Source:
        Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning", 2022
        (arXiv 2203.05556), section 3.2.1.
    """
    values = np.asarray(numbers, dtype=np.float64)
    if values.ndim != 2 or not len(values) or n_bins < 1:
        raise InputError(
            f"Bin edges need numbers (rows, columns) with at least one row and n_bins of at least "
            f"1, but got shape {values.shape} and n_bins={n_bins}."
        )
    if not np.isfinite(values).all():
        column = int(np.flatnonzero(~np.isfinite(values).all(axis=0))[0])
        raise InputError(
            f"Column {column} of the numbers has NaN or infinite values, so it has no quantiles. "
            "Fill missing values first."
        )
    quantiles = np.quantile(values, np.linspace(0.0, 1.0, n_bins + 1), axis=0)
    edges: list[list[float]] = []
    for column in quantiles.T:
        # Two edges that are equal in float32 would be a bin of width 0.
        distinct: list[float] = np.unique(column.astype(np.float32)).astype(float).tolist()
        low = distinct[0]
        edges.append(distinct if len(distinct) > 1 else [low, low + max(1.0, 1e-6 * abs(low))])
    return edges


class NumberLinear(nn.Module):
    """A linear layer for each number, ``(batch, n_numbers, n_in)`` to ``(…, n_numbers, n_out)``.

    Weights and biases are uniform in ±1/√n_in, as those of ``nn.Linear``.
    """

    def __init__(self, n_numbers: int, n_in: int, n_out: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = n_in**-0.5
        self.weight = nn.Parameter(torch.empty(n_numbers, n_in, n_out).uniform_(-bound, bound))
        self.bias = None
        if bias:
            self.bias = nn.Parameter(torch.empty(n_numbers, n_out).uniform_(-bound, bound))

    def forward(self, values: Tensor) -> Tensor:
        """Return the outputs of the layer of each number."""
        outputs = torch.bmm(values.transpose(0, 1), self.weight).transpose(0, 1)
        return outputs if self.bias is None else outputs + self.bias


class PeriodicEmbedding(nn.Module):
    """PLR: periodic, linear, ReLU. ``ReLU(W [cos 2πcx, sin 2πcx] + b)`` with learned ``c``.

    Args:
        n_numbers: Number of columns.
        width: Width of the embedding of each number.
        n_frequencies: Number of frequencies ``c`` for each number.
        sigma: Standard deviation of the initial frequencies. It depends on the data (0.01 to 50 in
            published searches), so it is worth a search.
        lite: Whether all numbers share ``W`` and ``b`` (PLR-lite), with far fewer weights.

    Source:
        Gorishniy et al., 2022 (arXiv 2203.05556), section 3.3; the lite form: Gorishniy et al.,
        "TabR", 2023 (arXiv 2307.14338). As in the authors' package, initial frequencies are at
        most 3 sigma.
    """

    def __init__(
        self,
        n_numbers: int,
        width: int = 24,
        *,
        n_frequencies: int = 48,
        sigma: float = 0.05,
        lite: bool = False,
    ) -> None:
        super().__init__()
        _check_sigma(sigma)
        self.width = width
        self.frequencies = nn.Parameter(torch.empty(n_numbers, n_frequencies))
        nn.init.trunc_normal_(self.frequencies, 0.0, sigma, a=-3 * sigma, b=3 * sigma)
        n_in = 2 * n_frequencies
        self.linear = nn.Linear(n_in, width) if lite else NumberLinear(n_numbers, n_in, width)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the embeddings ``(batch, n_numbers, width)``."""
        angles = 2 * math.pi * self.frequencies * numbers.unsqueeze(-1)
        return self.linear(torch.cat([angles.cos(), angles.sin()], dim=-1)).relu()


class BiasedPeriodicEmbedding(nn.Module):
    """PBLD: periodic with a bias, linear, dense. ``[W cos(2πcx + φ) + b, x]``.

    The number itself is the last element of its embedding, so a few more elements suffice.

    Args:
        n_numbers: Number of columns.
        width: Width of the embedding of each number, with the number itself; at least 2.
        n_frequencies: Number of frequencies ``c`` and phases ``φ`` for each number.
        sigma: Standard deviation of the initial frequencies.

    Source:
        Holzmüller et al., "Better by Default", 2024 (arXiv 2407.04491), section 3.
    """

    def __init__(
        self, n_numbers: int, width: int = 4, *, n_frequencies: int = 16, sigma: float = 0.1
    ) -> None:
        super().__init__()
        _check_sigma(sigma)
        if width < 2:
            raise InputError(f"The width of a PBLD embedding is {width}, but must be at least 2.")
        self.width = width
        self.frequencies = nn.Parameter(sigma * torch.randn(n_numbers, n_frequencies))
        phases = torch.empty(n_numbers, n_frequencies).uniform_(-math.pi, math.pi)
        self.phase_bias = nn.Parameter(phases)
        self.linear = NumberLinear(n_numbers, n_frequencies, width - 1)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the embeddings ``(batch, n_numbers, width)``."""
        x = numbers.unsqueeze(-1)
        waves = (2 * math.pi * self.frequencies * x + self.phase_bias).cos()
        embedded = self.linear(waves)
        return torch.cat([embedded, x.to(embedded.dtype)], dim=-1)


class PiecewiseLinearEncoding(nn.Module):
    """PLE without weights: the share of each bin that lies below the number.

    Element ``t`` is ``(x - b[t]) / (b[t+1] - b[t])``, at least 0 except in the first bin, and at
    most 1 except in the last one; so the encoding is linear beyond the edges. Numbers with fewer
    bins than others have zeros in the remaining elements.

    Args:
        edges: Increasing bin edges of each number, at least two; see ``ple_edges``.

    Raises:
        InputError: The edges of a number are fewer than two or do not increase.

    Source:
        Gorishniy et al., 2022 (arXiv 2203.05556), equation 1.
    """

    left: Tensor
    slope: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, edges: Sequence[Sequence[float]]) -> None:
        super().__init__()
        n_numbers = len(edges)
        self.n_bins = max((len(column) - 1 for column in edges), default=1)
        left, slope, lowest, highest = torch.zeros(4, n_numbers, self.n_bins).unbind()
        for i, column in enumerate(edges):
            points = torch.tensor(column, dtype=torch.float32)
            if len(points) < 2 or not bool((points.diff() > 0).all()):
                raise InputError(
                    f"The bin edges of number {i} are {list(column)!r:.60}, but a number needs at "
                    "least two edges, each larger than the one before (in float32)."
                )
            n = len(points) - 1
            left[i, :n], slope[i, :n], highest[i, :n] = points[:-1], 1.0 / points.diff(), 1.0
            lowest[i, 0], highest[i, n - 1] = -math.inf, math.inf
        # The edges are an argument of the constructor, so an export need not store them again.
        for name, value in zip(
            ("left", "slope", "lowest", "highest"), (left, slope, lowest, highest), strict=True
        ):
            self.register_buffer(name, value.clone(), persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the encoding ``(batch, n_numbers, n_bins)``."""
        shares = (numbers.unsqueeze(-1) - self.left) * self.slope
        return torch.clamp(shares, self.lowest, self.highest)


class PiecewiseLinearEmbedding(nn.Module):
    """PLE with a linear layer for each number.

    Args:
        edges: Increasing bin edges of each number; see ``ple_edges``.
        width: Width of the embedding of each number.
        version: "A" is ``V ple(x) + b``, the form of the first paper. "B" is ``w x + b + V ple(x)``
            with ``V = 0`` at first, so that training starts from a linear embedding; it is the form
            of TabM.
        relu: Whether a ReLU follows ``V ple(x) + b`` ("A"), or ``V ple(x)`` ("B").

    Source:
        Version "A": Gorishniy et al., 2022 (arXiv 2203.05556); "B": Gorishniy et al., "TabM", 2025
        (arXiv 2410.24210), appendix D.
    """

    def __init__(
        self,
        edges: Sequence[Sequence[float]],
        width: int = 16,
        *,
        version: Literal["A", "B"] = "B",
        relu: bool = False,
    ) -> None:
        super().__init__()
        if version not in ("A", "B"):
            raise InputError(f"version of a PLE embedding is {version!r}, but must be 'A' or 'B'.")
        self.width, self.relu = width, relu
        self.encoding = PiecewiseLinearEncoding(edges)
        n_numbers, is_b = len(edges), version == "B"
        self.linear = NumberLinear(n_numbers, self.encoding.n_bins, width, bias=not is_b)
        # A linear layer for one input each: the bound 1/√width instead of 1/√1 keeps the embedding
        # small, as in the authors' package.
        self.slope, self.bias = None, None
        if is_b:
            nn.init.zeros_(self.linear.weight)
            bound = width**-0.5
            self.slope = nn.Parameter(torch.empty(n_numbers, width).uniform_(-bound, bound))
            self.bias = nn.Parameter(torch.empty(n_numbers, width).uniform_(-bound, bound))

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the embeddings ``(batch, n_numbers, width)``."""
        pieces = self.linear(self.encoding(numbers))
        if self.relu:
            pieces = pieces.relu()
        if self.slope is None or self.bias is None:
            return pieces
        return torch.addcmul(self.bias, self.slope, numbers.unsqueeze(-1)) + pieces


def _check_sigma(sigma: float) -> None:
    if not 0 < sigma < math.inf:
        raise InputError(
            f"sigma of a periodic embedding is {sigma}, but must be a finite number above 0."
        )
