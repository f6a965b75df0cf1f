"""Classify images of clothes.

Defaults: the initial weights, the betas of Adam.
"""

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms import ToTensor

train = DataLoader(ImageFolder("fashion/train", ToTensor()), batch_size=64, shuffle=True)
test = DataLoader(ImageFolder("fashion/test", ToTensor()), batch_size=64)
model = resnet18(num_classes=10)
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

for _ in range(3):
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
