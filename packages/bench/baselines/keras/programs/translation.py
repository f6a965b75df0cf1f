"""Translate captions from English to German with attention.

Defaults: white space between words, batches of 32, Adam with learning rate 0.001, the mask of
the loss.
"""

import re
from pathlib import Path

import keras
import numpy as np
import sacrebleu
from keras import layers


def read(name):
    lines = Path("captions", name).read_text().splitlines()
    return [" ".join(["<s>", *re.findall(r"\w+|[^\w\s]", line), "</s>"]) for line in lines]


english, german = read("train.en"), read("train.de")
source_text = layers.TextVectorization(3_000, standardize=None)
target_text = layers.TextVectorization(3_000, standardize=None)
source_text.adapt(english)
target_text.adapt(german)
n_source, n_target = source_text.vocabulary_size(), target_text.vocabulary_size()

source = keras.Input([None])
target = keras.Input([None])
embedded = layers.Embedding(n_source, 128, mask_zero=True)(source)
memory, state = layers.GRU(128, return_sequences=True, return_state=True)(embedded)
embedded = layers.Embedding(n_target, 128, mask_zero=True)(target)
decoded = layers.GRU(128, return_sequences=True)(embedded, initial_state=state)
context = layers.Attention()([decoded, memory])
outputs = layers.Dense(n_target, activation="softmax")(layers.Concatenate()([decoded, context]))
model = keras.Model([source, target], outputs)
model.compile("adam", "sparse_categorical_crossentropy")
tokens = target_text(german)
model.fit([source_text(english), tokens[:, :-1]], tokens[:, 1:], epochs=6)

words = target_text.get_vocabulary()
source = source_text(read("test.en"))
tokens = np.full((len(source), 1), words.index("<s>"))
for _ in range(20):
    probabilities = model.predict([source, tokens])
    tokens = np.append(tokens, probabilities[:, -1:].argmax(2), 1)
translations = [
    " ".join(words[token] for token in row).partition(" </s>")[0] for row in tokens[:, 1:]
]
references = Path("captions/test.de").read_text().splitlines()
print(sacrebleu.corpus_bleu(translations, [references]).score)
