"""Compute the weight by which the summed loss of a batch is divided."""

from __future__ import annotations

from torch import Tensor

from flambeau.data.batch import Batch


def known_weight(batch: Batch, n_targets: int) -> float | None:
    """Return the weight of a loss that counts every target once; None if only the device has it.

    Args:
        batch: A batch; with sample weights its ``weight`` is their sum, or None.
        n_targets: Number of targets in the batch, the same for each sample.
    """
    if batch.sample_weight is None:
        return float(n_targets)
    if batch.weight is None or not len(batch):
        return batch.weight
    return batch.weight * (n_targets // len(batch))


def weight_of(n_targets: int, samples: Tensor | None, targets: Tensor) -> Tensor | float:
    """Return the weight of a loss that counts every target once, weighted by sample.

    Args:
        n_targets: Number of targets in the batch, the same for each sample.
        samples: Sample weights ``(batch, 1, …)``, or None.
        targets: The targets, with one row per sample.
    """
    if samples is None:
        return float(n_targets)
    return samples.sum() * (n_targets // max(1, len(targets)))
