"""The task of ``peers-vision`` for Keras on torch: the network of ``small_resnet`` in Keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import torch
from keras_tiny import Witness
from numpy.typing import NDArray

from flambeau_bench.side.array_hash import of_arrays
from flambeau_bench.side.fashion_arrays import MEAN, STD, FashionArrays, computes_in_bf16
from flambeau_bench.side.protocol import Facts, Job
from flambeau_bench.side.small_resnet import CLASSES, SmallResNet
from flambeau_bench.side.torch_witness import devices_of, torch_settings

_WIDTH = 32


class KerasFashionTask:
    """Model and images of one run; see ``FashionTask`` for the attributes.

    Images are arrays (n, 28, 28, 1), the default layout of Keras, normalised floats.
    """

    def __init__(self, job: Job, request: Mapping[str, Any]) -> None:
        if job.threads:
            torch.set_num_threads(job.threads)
        self.fast, self.fp32 = job.setting == "fast", job.row == "fp32"
        self.epochs, self.lr = int(request["epochs"]), float(request["lr"])
        self.batch_size = job.counts["batch_size"]
        self.seed = int(request.get("seed", job.seed))
        self.arrays = FashionArrays(job, held_out=bool(request.get("held_out")))
        self.bf16 = self.fast and not self.fp32 and computes_in_bf16()
        # Keras's own way to mixed precision, which counts for the layers made from here on.
        keras.config.set_dtype_policy("mixed_bfloat16" if self.bf16 else "float32")
        keras.utils.set_random_seed(self.seed)
        self._seen, self._last = Witness(outputs=True), Witness(outputs=True)
        self.model, self._weighted = _network(self._seen, self._last)
        torch.manual_seed(self.seed)
        _copy_weights(SmallResNet(_WIDTH), self._weighted)
        self._init_hash = self._weights_hash()
        self._seen.observing = self._last.observing = True

    def _weights_hash(self) -> str:
        """Return a hash of the parameters in the order and layout of torch."""
        return of_arrays(array for layer in self._weighted for array in _in_torch_layout(layer))

    def facts(self) -> Facts:
        """Return what was done, with the accuracy of the final weights."""
        self._seen.observing = self._last.observing = False
        types = self._last.types | {str(layer.variable_dtype) for layer in self._weighted}
        x = normalised(self.arrays.valid_images)
        predicted = self.model.predict(x, batch_size=1_000, verbose=0).argmax(1)
        return Facts(
            steps=self._seen.steps,
            samples=self._seen.samples,
            init_hash=self._init_hash,
            order_hash="",
            weights_hash=self._weights_hash(),
            precision=", ".join(sorted(types)),
            final_evaluations=self._seen.final_evaluations,
            seed=self.seed,
            quality={"accuracy": float((predicted == self.arrays.valid_labels).mean())},
            settings={
                **torch_settings(),
                "batch_size": self.batch_size,
                "device": devices_of(variable.value for variable in self.model.weights),
                "evaluated last": self._seen.final_evaluations > 0,
            },
            notes=f"{self.epochs} epochs, lr {self.lr:g}",
        )


def normalised(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return uint8 images (n, 28, 28) as normalised floats (n, 28, 28, 1)."""
    return ((images[..., None].astype(np.float32) / 255.0) - MEAN) / STD


def _network(seen: Any, last: Any) -> tuple[Any, list[Any]]:
    """Return the model, and its layers with parameters in torch's order."""
    weighted: list[Any] = []

    def convolution(x: Any, width: int) -> Any:
        layers = keras.layers
        convolve = layers.Conv2D(width, 3, padding="same", use_bias=False)
        norm = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)  # torch counts the other way
        weighted.extend((convolve, norm))
        return layers.ReLU()(norm(convolve(x)))

    inputs = keras.Input((28, 28, 1))
    x = convolution(seen(inputs), _WIDTH)
    x = convolution(keras.layers.MaxPooling2D(2)(x), 2 * _WIDTH)
    x = keras.layers.MaxPooling2D(2)(x)
    y = convolution(convolution(x, 2 * _WIDTH), 2 * _WIDTH)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([x, y]))
    head = keras.layers.Dense(CLASSES)
    weighted.append(head)
    return keras.Model(inputs, last(head(x))), weighted


def _copy_weights(source: SmallResNet, layers: list[Any]) -> None:
    parameters = iter([p.detach().numpy() for p in source.parameters()])
    for layer in layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([next(parameters).transpose(2, 3, 1, 0)])
        elif isinstance(layer, keras.layers.Dense):
            layer.set_weights([next(parameters).T, next(parameters)])
        else:
            _, _, mean, variance = layer.get_weights()
            layer.set_weights([next(parameters), next(parameters), mean, variance])


def _in_torch_layout(layer: Any) -> list[NDArray[Any]]:
    arrays = layer.get_weights()
    if isinstance(layer, keras.layers.Conv2D):
        return [arrays[0].transpose(3, 2, 0, 1)]
    if isinstance(layer, keras.layers.Dense):
        return [arrays[0].T, arrays[1]]
    return arrays[:2]
