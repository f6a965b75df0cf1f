"""Fine-tune a pretrained network to five new classes with 100 images each.

Defaults: the modes of the model, the loop and its progress bar, logs, a checkpoint.
"""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms import Compose, Normalize, ToTensor


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = resnet18(weights="DEFAULT")
        self.model.fc = nn.Linear(512, 5)

    def training_step(self, batch):
        images, labels = batch
        return cross_entropy(self.model(images), labels)

    def test_step(self, batch):
        images, labels = batch
        self.log("accuracy", (self.model(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.0005)


transform = Compose([ToTensor(), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
train = DataLoader(ImageFolder("photos/train", transform), batch_size=32, shuffle=True)
test = DataLoader(ImageFolder("photos/test", transform), batch_size=64)
model = Classifier()
trainer = pl.Trainer(max_epochs=10)
trainer.fit(model, train)
print(trainer.test(model, test)[0]["accuracy"])
