"""Train the head alone first, then all layers at a lower learning rate.

Longer than one stage for all layers, as in PyTorch's tutorial.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms import Compose, Normalize, ToTensor

transform = Compose([ToTensor(), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
train = DataLoader(ImageFolder("photos/train", transform), batch_size=32, shuffle=True)
test = DataLoader(ImageFolder("photos/test", transform), batch_size=64)
model = resnet18(weights="DEFAULT")
model.fc = nn.Linear(512, 5)


def fit(parameters, lr, epochs):
    optimizer = torch.optim.Adam(parameters, lr=lr)
    for _ in range(epochs):
        model.train()
        for images, labels in train:
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            correct = sum((model(images).argmax(1) == labels).sum() for images, labels in test)
        print(correct.item() / len(test.dataset))


fit(model.fc.parameters(), 0.001, 1)
fit(model.parameters(), 0.0001, 5)
