"""Classify images of clothes.

Defaults: the modes of the model, the loop and its progress bar, logs, a checkpoint.
"""

import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms import ToTensor


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = resnet18(num_classes=10)

    def training_step(self, batch):
        images, labels = batch
        return cross_entropy(self.model(images), labels)

    def test_step(self, batch):
        images, labels = batch
        self.log("accuracy", (self.model(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.001)


train = DataLoader(ImageFolder("fashion/train", ToTensor()), batch_size=64, shuffle=True)
test = DataLoader(ImageFolder("fashion/test", ToTensor()), batch_size=64)
model = Classifier()
trainer = pl.Trainer(max_epochs=3)
trainer.fit(model, train)
print(trainer.test(model, test)[0]["accuracy"])
