"""Encode the columns with FeatureSpace.

Longer: it needs the kind of each column and data sets of dictionaries.
"""

import keras
import pandas as pd
import tensorflow as tf
from keras import layers
from keras.utils import FeatureSpace


def read(name):
    rows = pd.read_csv(f"adult/{name}.csv")
    labels = rows.pop("income") == ">50K"
    return tf.data.Dataset.from_tensor_slices((dict(rows), labels)).batch(32)


train, test = read("train"), read("test")
space = FeatureSpace(
    {
        "age": FeatureSpace.float_normalized(),
        "workclass": FeatureSpace.string_categorical(),
        "fnlwgt": FeatureSpace.float_normalized(),
        "education": FeatureSpace.string_categorical(),
        "education_num": FeatureSpace.float_normalized(),
        "marital_status": FeatureSpace.string_categorical(),
        "occupation": FeatureSpace.string_categorical(),
        "relationship": FeatureSpace.string_categorical(),
        "race": FeatureSpace.string_categorical(),
        "sex": FeatureSpace.string_categorical(),
        "capital_gain": FeatureSpace.float_normalized(),
        "capital_loss": FeatureSpace.float_normalized(),
        "hours_per_week": FeatureSpace.float_normalized(),
        "native_country": FeatureSpace.string_categorical(),
    }
)
space.adapt(train.map(lambda rows, labels: rows))
hidden = layers.Dense(64, activation="relu")(space.get_encoded_features())
outputs = layers.Dense(1, activation="sigmoid")(hidden)
model = keras.Model(space.get_encoded_features(), outputs)
model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
model.fit(train.map(lambda rows, labels: (space(rows), labels)), epochs=3)
print(model.evaluate(test.map(lambda rows, labels: (space(rows), labels)))[1])
