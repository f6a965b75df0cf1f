"""Train a small network on the outputs of a large one (distillation), in plain PyTorch."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split


def train(model, loss_of):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for epoch in range(10):
        model.train()
        for x, y in DataLoader(train_rows, batch_size=32, shuffle=True):
            loss = loss_of(model(x), x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            x, y = valid_rows[:]
            print(epoch, (model(x).argmax(1) == y).float().mean().item())


def distil(outputs, x, y):
    with torch.no_grad():
        soft = (teacher(x) / 2).softmax(1)
    return cross_entropy(outputs, y) + cross_entropy(outputs / 2, soft)


torch.manual_seed(0)
x = torch.randn(2000, 8)
y = (x[:, 0] * x[:, 1] > 0).long()
train_rows, valid_rows = random_split(TensorDataset(x, y), [1600, 400])
teacher = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
student = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
train(teacher, lambda outputs, x, y: cross_entropy(outputs, y))
train(student, distil)
