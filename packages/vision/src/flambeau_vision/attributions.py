"""``pixel_attributions``: how much each pixel of an image moves an output of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from flambeau.artefact.input_gradients import input_gradients
from flambeau.artefact.predictor import Predictor
from flambeau.data.attributions import Attributions
from flambeau.errors import ArgumentError
from flambeau_vision.preprocess import INPUT, ImagePreprocessor


def pixel_attributions(
    predictor: Predictor, item: Any, output: str | None, background: Sequence[Any]
) -> Attributions:
    """Return integrated gradients of an image, summed over the channels of each pixel.

    The baseline is an image of the mean colour of the train images, which is zero after the
    normalisation. Of a single gradient or of SmoothGrad the values of the pixels have no common
    unit; these add up to what the image changes, see ``flambeau.inspect.integrated_gradients``.

    Args:
        predictor: A predictor of images.
        item: An image, as ``predict`` takes it.
        output: Name of an output; None is the highest one.
        background: Not used.

    Raises:
        ArgumentError: The predictor is not one of images, or the outputs are not one row of numbers
            for each image.
    """
    preprocessor = predictor.preprocessor
    if not isinstance(preprocessor, ImagePreprocessor):
        raise ArgumentError(
            f"The predictor reads inputs with a {type(preprocessor).__name__}. Give one whose "
            "model was trained on ImageData."
        )
    found = input_gradients(predictor, item, output)
    mean, std = torch.tensor(preprocessor.mean), torch.tensor(preprocessor.std)
    pixels = found.batch.inputs[INPUT][0].float().cpu()
    pixels = (pixels * std.view(-1, 1, 1) + mean.view(-1, 1, 1)).clamp(0.0, 1.0)
    # Other numbers of channels than three are shown as their mean.
    shown = pixels if len(pixels) == 3 else pixels.mean(0, keepdim=True).expand(3, -1, -1)
    return Attributions(
        found.output,
        found.method,
        heat=found.values[INPUT][0].sum(0).float().cpu(),
        image=(shown * 255.0).round().to(torch.uint8).movedim(0, -1).contiguous(),
        total=found.total,
    )
