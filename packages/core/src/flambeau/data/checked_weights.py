"""``checked_weights``: checks the weights of samples in loss and metrics, for every domain."""

from __future__ import annotations

import torch
from torch import Tensor

from flambeau.data.split import Rows
from flambeau.errors import InputError


def checked_weights(
    weights: Tensor, *, allow_zeros: bool = False, rows: Rows | None = None
) -> Tensor:
    """Check the weights of samples and return them as a floating-point tensor ``(n,)``.

    Args:
        weights: One number per row.
        rows: The number of each row in the source, for messages; None if it is the position.
        allow_zeros: Accept weights that are all 0, as those of a single batch may be.

    Raises:
        InputError: The weights are not one number per row, a weight is negative or not finite (the
            message gives its row), or all weights are 0.
    """
    if weights.ndim != 1:
        raise InputError(
            f"sample_weight has shape {tuple(weights.shape)}, but must be one number per row: (n,)."
        )
    if not weights.is_floating_point():
        weights = weights.to(torch.get_default_dtype())
    wrong = ~((weights >= 0) & weights.isfinite())
    if wrong.any():
        row = int(wrong.nonzero()[0])
        number = row if rows is None else int(rows[row])
        raise InputError(
            f"sample_weight is {weights[row].item():g} in row {number}, but weights must be finite "
            "and at least 0. A row with weight 0 has no effect on loss and metrics."
        )
    if not allow_zeros and not weights.any():
        raise InputError("Every sample_weight is 0, so no row counts. Give a weight above 0.")
    return weights
