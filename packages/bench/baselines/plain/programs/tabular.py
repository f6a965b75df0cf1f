"""Predict who earns more than 50,000 dollars.

Defaults: the initial weights, the betas of Adam.
"""

import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

train, test = pd.read_csv("adult/train.csv"), pd.read_csv("adult/test.csv")
table = pd.concat([train, test])
y = torch.tensor((table.pop("income") == ">50K").to_numpy()).long()
x = torch.tensor(pd.get_dummies(table).to_numpy(dtype="float32"))
n = len(train)
x = (x - x[:n].mean(0)) / x[:n].std(0)
loader = DataLoader(TensorDataset(x[:n], y[:n]), batch_size=64, shuffle=True)
model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

for _ in range(3):
    for rows, labels in loader:
        loss = cross_entropy(model(rows), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        print((model(x[n:]).argmax(1) == y[n:]).float().mean().item())
