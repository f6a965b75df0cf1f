"""``DropoutFactor``: the scheduled value "dropout_factor" multiplies dropout probabilities."""

from __future__ import annotations

from torch import nn

_KINDS = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


class DropoutFactor:
    """Sets the probability of each dropout layer to its own probability times a factor.

    Layers of torch.nn (``nn.Dropout`` …) are scaled. A probability that another module passes to a
    function, such as ``nn.LSTM(dropout=…)``, is not. A compiled model is compiled again for each
    probability.

    Args:
        model: The model, with the probabilities that correspond to the factor 1.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = (layer for layer in model.modules() if isinstance(layer, _KINDS))
        self._layers = [(layer, layer.p) for layer in layers if layer.p]
        self._factor = 1.0

    def __bool__(self) -> bool:
        """Whether the model has a dropout layer with a probability above 0."""
        return bool(self._layers)

    def set(self, factor: float) -> None:
        """Set the probabilities for a factor; they are at most 1 and at least 0."""
        if factor == self._factor:
            return
        self._factor = factor
        for layer, probability in self._layers:
            layer.p = min(1.0, max(0.0, probability * factor))
