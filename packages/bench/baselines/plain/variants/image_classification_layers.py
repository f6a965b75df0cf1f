"""Write the layers of a small network.

Longer than to name a ResNet-18 of torchvision.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

train = DataLoader(ImageFolder("fashion/train", ToTensor()), batch_size=64, shuffle=True)
test = DataLoader(ImageFolder("fashion/test", ToTensor()), batch_size=64)
model = nn.Sequential(
    nn.Conv2d(3, 32, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(1600, 10),
)
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

for _ in range(5):
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
