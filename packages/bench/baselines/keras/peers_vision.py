"""Keras on torch: ``compile`` and ``fit`` on arrays; fast is bf16 where the processor has it."""

import os

from flambeau_bench.side.protocol import ImportTimer, serve

os.environ["KERAS_BACKEND"] = "torch"
with ImportTimer() as imports:
    import keras

from keras_fashion import KerasFashionTask, normalised


def build(task):
    model, arrays = task.model, task.arrays
    x, valid_x = normalised(arrays.train_images), normalised(arrays.valid_images)
    model.compile(
        optimizer=keras.optimizers.AdamW(task.lr),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=task.fast,
    )
    return lambda: model.fit(
        x,
        arrays.train_labels,
        batch_size=task.batch_size,
        epochs=task.epochs,
        validation_data=(valid_x, arrays.valid_labels),
    )


if __name__ == "__main__":
    serve(build, KerasFashionTask, imports, ["torch", "keras"])
