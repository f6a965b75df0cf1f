"""Classify images of clothes.

Defaults: batches of 32, Adam with learning rate 0.001.
"""

import keras
from keras import layers

train = keras.utils.image_dataset_from_directory("fashion/train", image_size=(28, 28))
test = keras.utils.image_dataset_from_directory("fashion/test", image_size=(28, 28))
model = keras.Sequential(
    [
        layers.Rescaling(1 / 255),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, epochs=5)
print(model.evaluate(test)[1])
