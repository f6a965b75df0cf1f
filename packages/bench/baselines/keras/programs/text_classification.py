"""Tell positive from negative reviews of films.

Defaults: lower case without punctuation, batches of 32, Adam with learning rate 0.001.
"""

import keras
import pandas as pd
from keras import layers

train, test = pd.read_csv("reviews/train.csv"), pd.read_csv("reviews/test.csv")
vectorize = layers.TextVectorization(10_000, output_mode="multi_hot")
vectorize.adapt(train["text"])
model = keras.Sequential(
    [layers.Dense(16, activation="relu"), layers.Dense(1, activation="sigmoid")]
)
model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
model.fit(vectorize(train["text"]), train["label"], epochs=5)
print(model.evaluate(vectorize(test["text"]), test["label"])[1])
