"""``Scaler``: scale a column of numbers; its statistics do not depend on the order of the rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from flambeau.errors import InputError
from flambeau_tabular.options import Scaling

GRID = 240
"""Number of bins between the quantiles of `quantile_grids`; many numbers of bins divide it."""

# Quantiles that a scaler keeps: one per 30 rows, within these bounds (Gorishniy et al., 2021).
_ROWS_PER_QUANTILE, _FEWEST, _MOST = 30, 10, 1000
# Standard deviation of the noise that separates equal values, in standard deviations of the column.
_NOISE = 1e-5
_CLIP = 1e-7  # as scikit-learn: normal quantiles up to ±5.2
_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Scaler:
    """Scale numbers by statistics of the train rows.

    Attributes:
        scaling: "robust" is (x - median) / IQR, then the smooth clip x / sqrt(1 + (x / 3)²) of
            RealMLP (Holzmüller et al., 2024); if the IQR is 0, half of the range replaces it.
            "standard" is (x - mean) / std with ddof 0. "quantile" maps the distribution to a normal
            one, between -5.2 and 5.2. "none" changes nothing.
        center: Median or mean.
        factor: 1 / IQR or 1 / std; 0 for a constant column, whose result is 0.
        fill: The median, which replaces missing numbers.
        quantiles: Quantiles of the noisy train values for "quantile", else empty.
    """

    scaling: Scaling
    center: float
    factor: float
    fill: float
    quantiles: tuple[float, ...] = ()

    @classmethod
    def fit(cls, ordered: NDArray[np.float64], scaling: Scaling) -> Scaler:
        """Return the scaler of sorted finite numbers ``(n,)``, n ≥ 1."""
        if scaling not in get_args(Scaling):
            raise InputError(
                f"Unknown scaling={scaling!r}. Choose {', '.join(map(repr, get_args(Scaling)))}."
            )
        quarter, median, three_quarters = sorted_quantiles(ordered, [0.25, 0.5, 0.75]).tolist()
        center, factor, quantiles = 0.0, 1.0, ()
        if scaling == "robust":
            center = median
            factor = _inverse(three_quarters - quarter or 0.5 * (ordered[-1] - ordered[0]))
        elif scaling == "standard":
            center = float(ordered.mean())
            # Constant columns: rounding of the mean would leave a spread that is not 0.
            factor = _inverse(float(ordered.std()) if ordered[0] != ordered[-1] else 0.0)
        elif scaling == "quantile":
            quantiles = tuple(_noisy_quantiles(ordered).tolist())
        return cls(scaling, center, factor, median, quantiles)

    def apply(self, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the scaled numbers as float32; NaN is replaced by the median before."""
        filled = np.where(np.isnan(numbers), self.fill, numbers)
        if self.scaling == "quantile":
            return _to_normal(filled, np.array(self.quantiles))
        filled -= self.center
        filled *= self.factor
        if self.scaling == "robust":
            filled /= np.hypot(1.0, filled / 3.0)  # does not overflow
        return np.clip(filled, -_FLOAT32, _FLOAT32, out=filled).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return {**asdict(self), "quantiles": list(self.quantiles)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Scaler:
        """Return the scaler of `to_json`."""
        return cls(**{**values, "quantiles": tuple(values["quantiles"])})


def quantile_grids(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return evenly spaced quantiles of sorted numbers, and of their distinct values.

    The result is ``(2, GRID + 1)``.
    """
    levels = np.linspace(0.0, 1.0, GRID + 1)
    both = (scaled, np.unique(scaled))
    return np.stack([sorted_quantiles(each, levels) for each in both]).astype(np.float32)


def sorted_quantiles(ordered: NDArray[Any], levels: Any) -> NDArray[np.float64]:
    """Return what ``numpy.quantile`` does, of numbers that are sorted already."""
    position = np.asarray(levels) * (len(ordered) - 1)
    below = np.floor(position).astype(np.int64)
    low = ordered[below].astype(np.float64)
    high = ordered[np.minimum(below + 1, len(ordered) - 1)].astype(np.float64)
    share = position - below
    return np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1.0 - share))


def _inverse(spread: float) -> float:
    return float(1.0 / spread) if spread > 0.0 and np.isfinite(1.0 / spread) else 0.0


def _noisy_quantiles(ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return quantiles of the values plus noise, so that equal values do not share a quantile."""
    n = max(min(len(ordered) // _ROWS_PER_QUANTILE, _MOST), _FEWEST)
    # Added in the order of the values: the result does not depend on the order of the rows.
    noise = np.random.default_rng(0).standard_normal(len(ordered))
    noisy = ordered + noise * (_NOISE * float(ordered.std()))
    return sorted_quantiles(np.sort(noisy), np.linspace(0.0, 1.0, n))


def _to_normal(numbers: NDArray[np.float64], quantiles: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return normal quantiles, as scikit-learn's ``QuantileTransformer`` does."""
    import torch

    levels = np.linspace(0.0, 1.0, len(quantiles))
    if quantiles[0] == quantiles[-1]:
        return np.zeros(len(numbers), np.float32)
    # The mean from both sides: in the middle of a run of equal quantiles.
    below = np.interp(numbers, quantiles, levels)
    above = -np.interp(-numbers, -quantiles[::-1], -levels[::-1])
    share = np.clip(0.5 * (below + above), _CLIP, 1.0 - _CLIP)
    return torch.special.ndtri(torch.from_numpy(share)).float().numpy()
