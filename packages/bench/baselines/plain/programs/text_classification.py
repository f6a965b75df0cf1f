"""Tell positive from negative reviews of films.

Defaults: words of two letters and more, the initial weights, the betas of Adam.
"""

import pandas as pd
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

train, test = pd.read_csv("reviews/train.csv"), pd.read_csv("reviews/test.csv")
vectorizer = CountVectorizer(max_features=10_000, binary=True)
x = torch.tensor(vectorizer.fit_transform(train["text"]).toarray()).float()
x_test = torch.tensor(vectorizer.transform(test["text"]).toarray()).float()
y, y_test = torch.tensor(train["label"]), torch.tensor(test["label"])
loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
model = nn.Sequential(nn.Linear(10_000, 16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

for _ in range(5):
    for texts, labels in loader:
        loss = cross_entropy(model(texts), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        print((model(x_test).argmax(1) == y_test).float().mean().item())
