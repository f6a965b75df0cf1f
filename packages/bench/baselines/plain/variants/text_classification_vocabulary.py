"""Build the vocabulary by hand, and average the vectors of the words.

Longer than CountVectorizer, which needs scikit-learn.
"""

import re
from collections import Counter

import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

train, test = pd.read_csv("reviews/train.csv"), pd.read_csv("reviews/test.csv")
counts = Counter(word for text in train["text"] for word in re.findall(r"\w+", text.lower()))
ids = {word: index for index, (word, _) in enumerate(counts.most_common(10_000), 2)}


def collate(rows):
    texts, labels = zip(*rows, strict=True)
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    tokens = [torch.tensor([ids.get(word, 1) for word in text]) for text in words]
    return pad_sequence(tokens, batch_first=True), torch.tensor(labels)


loader = DataLoader(train.to_numpy(), batch_size=32, shuffle=True, collate_fn=collate)
model = nn.Sequential(nn.EmbeddingBag(10_002, 64, padding_idx=0), nn.Linear(64, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

for _ in range(5):
    for tokens, labels in loader:
        loss = cross_entropy(model(tokens), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        tokens, labels = collate(test.to_numpy())
        print((model(tokens).argmax(1) == labels).float().mean().item())
