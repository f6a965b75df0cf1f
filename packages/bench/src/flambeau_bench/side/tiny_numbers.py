"""The data and initial weights of ``peers-overhead`` as arrays, the same in every library."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

N_INPUTS, HIDDEN, BATCH_SIZE = 32, 64, 32
DISTINCT = 64
"""Different batches; a longer epoch repeats them."""

LR = 0.01

Array = NDArray[np.float32]


def initial_weights(seed: int) -> list[Array]:
    """Return weight and bias of both layers in torch's layout: (64, 32), (64,), (1, 64), (1,)."""
    draws = np.random.default_rng([seed, 0])
    shapes = ((HIDDEN, N_INPUTS), (HIDDEN,), (1, HIDDEN), (1,))
    return [(0.1 * draws.standard_normal(shape)).astype(np.float32) for shape in shapes]


def batches(seed: int, count: int) -> list[tuple[Array, Array]]:
    """Return ``count`` batches: inputs (32, 32), targets (32, 1). From the 65th they repeat."""
    made = [_batch(seed, number) for number in range(min(count, DISTINCT))]
    return [made[number % DISTINCT] for number in range(count)]


def valid_batch(seed: int) -> tuple[Array, Array]:
    """Return the one batch on which a fit is evaluated."""
    return _batch(seed, DISTINCT)


def mean_squared_error(prediction: NDArray[Any], target: NDArray[Any]) -> float:
    """Return the mean squared error in float64."""
    return float(np.mean((prediction.astype(np.float64) - target.astype(np.float64)) ** 2))


def _batch(seed: int, number: int) -> tuple[Array, Array]:
    draws = np.random.default_rng([seed, 1, number])
    x = draws.standard_normal((BATCH_SIZE, N_INPUTS)).astype(np.float32)
    noise = 0.1 * draws.standard_normal((BATCH_SIZE, 1))
    return x, (x[:, :1] * x[:, 1:2] + noise).astype(np.float32)
