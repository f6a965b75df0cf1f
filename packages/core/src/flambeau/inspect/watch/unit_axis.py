"""``UnitAxis``: which axis of an output has the units (features, channels) of a layer."""

from __future__ import annotations

from torch import Tensor, nn

CHANNELS_FIRST = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm,
)  # fmt: skip
"""Layers whose units are axis 1."""

FEATURES_LAST = (
    nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm, nn.RNNBase,
    nn.MultiheadAttention,
)  # fmt: skip
"""Layers whose units are the last axis."""


class UnitAxis:
    """Follows the layers of a forward pass in the order of their calls.

    Layers without units (ReLU, softmax) have those of the layer before them, if their outputs have
    as many axes.
    """

    def __init__(self) -> None:
        self._before: tuple[int, bool] | None = None

    def start(self) -> None:
        """Start a forward pass."""
        self._before = None

    def after(self, module: nn.Module | None, output: Tensor) -> int:
        """Return the axis of the units in an output, at least 1; 0 for an output of one axis.

        Args:
            module: The layer; None for a function.
            output: Its output, batch first.
        """
        if output.ndim < 3:
            return output.ndim - 1
        if isinstance(module, CHANNELS_FIRST):
            is_last = False
        elif isinstance(module, FEATURES_LAST):
            is_last = True
        elif self._before is not None and self._before[0] == output.ndim:
            is_last = self._before[1]
        else:
            is_last = output.ndim == 3
        self._before = output.ndim, is_last
        return output.ndim - 1 if is_last else 1
