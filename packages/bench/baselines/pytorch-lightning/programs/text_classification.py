"""Tell positive from negative reviews of films.

Defaults: words of two letters and more, the loop and its progress bar, logs, a checkpoint.
"""

import pandas as pd
import pytorch_lightning as pl
import torch
from sklearn.feature_extraction.text import CountVectorizer
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(10_000, 16), nn.ReLU(), nn.Linear(16, 2))

    def training_step(self, batch):
        texts, labels = batch
        return cross_entropy(self.model(texts), labels)

    def test_step(self, batch):
        texts, labels = batch
        self.log("accuracy", (self.model(texts).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.001)


train, test = pd.read_csv("reviews/train.csv"), pd.read_csv("reviews/test.csv")
vectorizer = CountVectorizer(max_features=10_000, binary=True)
x = torch.tensor(vectorizer.fit_transform(train["text"]).toarray()).float()
x_test = torch.tensor(vectorizer.transform(test["text"]).toarray()).float()
y, y_test = torch.tensor(train["label"]), torch.tensor(test["label"])
model = Classifier()
trainer = pl.Trainer(max_epochs=5)
trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True))
[scores] = trainer.test(model, DataLoader(TensorDataset(x_test, y_test), batch_size=32))
print(scores["accuracy"])
