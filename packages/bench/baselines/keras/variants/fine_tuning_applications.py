"""Fine-tune a network of keras.applications, as in the guide on transfer learning.

Longer than KerasHub, which needs the package keras-hub.
"""

import keras
from keras import layers

train = keras.utils.image_dataset_from_directory("photos/train", image_size=(32, 32))
test = keras.utils.image_dataset_from_directory("photos/test", image_size=(32, 32))
base = keras.applications.MobileNetV3Small(input_shape=(32, 32, 3), include_top=False)
base.trainable = False
inputs = keras.Input((32, 32, 3))
pooled = layers.GlobalAveragePooling2D()(base(inputs, training=False))
model = keras.Model(inputs, layers.Dense(5, activation="softmax")(pooled))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, epochs=1)
base.trainable = True
model.compile(keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, epochs=5)
print(model.evaluate(test)[1])
