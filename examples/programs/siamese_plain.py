"""Learn a distance from pairs of samples (a siamese network), in plain PyTorch."""

import torch
from torch import nn
from torch.nn.functional import pairwise_distance
from torch.utils.data import DataLoader, TensorDataset, random_split


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, a, b):
        return pairwise_distance(self.body(a), self.body(b))


def contrastive(distance, same):
    return torch.where(same, distance, (1 - distance).clamp(min=0)).square()


torch.manual_seed(0)
a, b = torch.randn(2, 2000, 8)
same = (a[:, 0] > 0) == (b[:, 0] > 0)
train, valid = random_split(TensorDataset(a, b, same), [1600, 400])
loader = DataLoader(train, batch_size=32, shuffle=True)
model = Siamese()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
for epoch in range(20):
    model.train()
    for a, b, same in loader:
        loss = contrastive(model(a, b), same).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        a, b, same = valid[:]
        print(epoch, contrastive(model(a, b), same).mean().item())
