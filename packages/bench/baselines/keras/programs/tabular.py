"""Predict who earns more than 50,000 dollars.

Defaults: batches of 32, Adam with learning rate 0.001.
"""

import keras
import pandas as pd
from keras import layers

train, test = pd.read_csv("adult/train.csv"), pd.read_csv("adult/test.csv")
table = pd.concat([train, test])
y = table.pop("income") == ">50K"
x = pd.get_dummies(table, dtype="float32").to_numpy()
n = len(train)
normalize = layers.Normalization()
normalize.adapt(x[:n])
model = keras.Sequential(
    [normalize, layers.Dense(64, activation="relu"), layers.Dense(1, activation="sigmoid")]
)
model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
model.fit(x[:n], y[:n], epochs=3)
print(model.evaluate(x[n:], y[n:])[1])
