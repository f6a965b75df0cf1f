"""Keras on torch: ``compile`` and ``fit`` on arrays, or on the user's ``DataLoader``."""

import os

from flambeau_bench.side.protocol import AbsentError, ImportTimer, serve

os.environ["KERAS_BACKEND"] = "torch"
with ImportTimer() as imports:
    import keras

import numpy as np
from keras_tiny import KerasTinyTask, UserAdam
from torch import from_numpy
from torch.utils.data import DataLoader

from flambeau_bench.side.torch_tiny import UserRows


def loader(batches):
    rows = UserRows([(from_numpy(x), from_numpy(y)) for x, y in batches])
    return DataLoader(rows, batch_size=32)


def build(task):
    if task.fast:
        raise AbsentError("its fast setting, jit_compile, compiles each model longer than it runs")
    optimizer = keras.optimizers.SGD(task.lr)
    if task.user_optimizer:
        optimizer = UserAdam(task.lr)
    task.model.compile(optimizer=optimizer, loss="mean_squared_error")
    if task.user_loader:
        train, valid = loader(task.batches), loader(task.valid_batches)
        return lambda: task.model.fit(train, validation_data=valid)
    x, y = (np.concatenate(arrays) for arrays in zip(*task.batches, strict=True))
    [valid] = task.valid_batches
    return lambda: task.model.fit(x, y, batch_size=32, shuffle=False, validation_data=valid)


if __name__ == "__main__":
    serve(build, KerasTinyTask, imports, ["torch", "keras"])
