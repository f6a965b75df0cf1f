"""Predict who earns more than 50,000 dollars.

Defaults: the loop and its progress bar, logs, a checkpoint.
"""

import pandas as pd
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


class Classifier(pl.LightningModule):
    def __init__(self, n_features):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(n_features, 64), nn.ReLU(), nn.Linear(64, 2))

    def training_step(self, batch):
        rows, labels = batch
        return cross_entropy(self.model(rows), labels)

    def test_step(self, batch):
        rows, labels = batch
        self.log("accuracy", (self.model(rows).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.001)


train, test = pd.read_csv("adult/train.csv"), pd.read_csv("adult/test.csv")
table = pd.concat([train, test])
y = torch.tensor((table.pop("income") == ">50K").to_numpy()).long()
x = torch.tensor(pd.get_dummies(table).to_numpy(dtype="float32"))
n = len(train)
x = (x - x[:n].mean(0)) / x[:n].std(0)
model = Classifier(x.shape[1])
trainer = pl.Trainer(max_epochs=3)
trainer.fit(model, DataLoader(TensorDataset(x[:n], y[:n]), batch_size=64, shuffle=True))
[scores] = trainer.test(model, DataLoader(TensorDataset(x[n:], y[n:]), batch_size=64))
print(scores["accuracy"])
