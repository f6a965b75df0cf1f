"""The task of ``peers-overhead`` for Keras on torch: the same MLP, weights and batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import torch

from flambeau_bench.side import tiny_numbers
from flambeau_bench.side.array_hash import ArrayHash, of_arrays
from flambeau_bench.side.protocol import Facts, Job
from flambeau_bench.side.tiny_numbers import BATCH_SIZE, HIDDEN, N_INPUTS
from flambeau_bench.side.torch_witness import devices_of, torch_settings


class Witness(keras.layers.Layer):
    """A layer that passes its input on and records what it sees; only in a run that is not timed.

    Args:
        outputs: Whether it is the last layer, which sees outputs, else it sees the batches.
    """

    def __init__(self, outputs: bool) -> None:
        super().__init__(autocast=False)  # it sees the precision of its input
        self._outputs = outputs
        self.steps = self.samples = self.final_evaluations = 0
        self.types: set[str] = set()
        self.batches = ArrayHash()
        self.observing = False

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return ``inputs``."""
        if not self.observing:  # Keras calls a layer when it builds the model
            return inputs
        if not training:
            self.final_evaluations += 1
            return inputs
        self.final_evaluations = 0
        self.steps += 1
        self.samples += len(inputs)
        self.types.add(keras.backend.standardize_dtype(inputs.dtype))
        if not self._outputs:
            self.batches.add(keras.ops.convert_to_numpy(inputs).astype(np.float32))
        return inputs


class UserAdam(keras.optimizers.Optimizer):
    """Adam as a user-defined optimizer of Keras, with the formulas of ``ForLoopAdam``."""

    def build(self, variables: Any) -> None:
        """Make the moments."""
        if self.built:
            return
        super().build(variables)
        make = self.add_variable_from_reference
        self._means = [make(variable, name="mean") for variable in variables]
        self._squares = [make(variable, name="square") for variable in variables]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        beta1, beta2, epsilon = 0.9, 0.999, 1e-8
        ops = keras.ops
        step = ops.cast(self.iterations + 1, variable.dtype)
        number = self._get_variable_index(variable)
        mean, square = self._means[number], self._squares[number]
        self.assign_add(mean, (gradient - mean) * (1.0 - beta1))
        self.assign_add(square, (gradient * gradient - square) * (1.0 - beta2))
        size = learning_rate / (1.0 - beta1**step)
        scale = ops.sqrt(square / (1.0 - beta2**step)) + epsilon
        self.assign_sub(variable, size * mean / scale)


class KerasTinyTask:
    """Model and batches of one run; see ``TinyTask`` for the attributes, with arrays as batches."""

    def __init__(self, job: Job, request: Mapping[str, Any]) -> None:
        if job.threads:
            torch.set_num_threads(job.threads)
        self.fast, self.lr = job.setting == "fast", tiny_numbers.LR
        self.user_optimizer = job.row == "user optimizer"
        self.user_loader = job.row == "user loader"
        self.seed, self.watched = job.seed, bool(request.get("watch"))
        self.batches = tiny_numbers.batches(job.seed, int(request["steps"]))
        self.valid_batches = [tiny_numbers.valid_batch(job.seed)]
        keras.utils.set_random_seed(job.seed)
        self._dense = [keras.layers.Dense(HIDDEN, activation="relu"), keras.layers.Dense(1)]
        self._seen, self._last = Witness(outputs=False), Witness(outputs=True)
        around = ([self._seen], [self._last]) if self.watched else ([], [])
        layers = [keras.Input((N_INPUTS,)), *around[0], *self._dense, *around[1]]
        self.model = keras.Sequential(layers)
        weights = tiny_numbers.initial_weights(job.seed)
        for layer, kernel, bias in zip(self._dense, weights[::2], weights[1::2], strict=True):
            layer.set_weights([kernel.T, bias])
        self._init_hash = self._weights_hash()
        self._seen.observing = self._last.observing = True

    def _weights_hash(self) -> str:
        """Return a hash of the weights in torch's layout."""
        pairs = (layer.get_weights() for layer in self._dense)
        return of_arrays(array for kernel, bias in pairs for array in (kernel.T, bias))

    def facts(self) -> Facts:
        """Return what was done. Without "watch" only what the weights show."""
        self._seen.observing = self._last.observing = False
        types = self._last.types | {layer.kernel.dtype for layer in self._dense}
        x, y = self.valid_batches[0]
        prediction = keras.ops.convert_to_numpy(self.model(x, training=False))
        return Facts(
            steps=self._seen.steps,
            samples=self._seen.samples,
            init_hash=self._init_hash,
            order_hash=self._seen.batches.text() if self.watched else "",
            weights_hash=self._weights_hash(),
            precision=", ".join(sorted(types)),
            final_evaluations=self._seen.final_evaluations,
            seed=self.seed,
            quality={"loss": tiny_numbers.mean_squared_error(prediction, y)},
            settings={
                **torch_settings(),
                "batch_size": BATCH_SIZE,
                "device": devices_of(variable.value for variable in self.model.weights),
            },
        )
