"""Learn features without labels from two random views (SimCLR), in plain PyTorch."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader, TensorDataset


def view(x):
    """Add noise to the features that do not tell the class."""
    return x + torch.cat([0.3 * torch.randn(len(x), 2), 3 * torch.randn(len(x), 6)], 1)


torch.manual_seed(0)
label = torch.arange(1000) % 2
x = torch.randn(1000, 8) + 2 * label[:, None]
encoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
loader = DataLoader(TensorDataset(x), batch_size=100, shuffle=True, drop_last=True)
optimizer = torch.optim.AdamW(encoder.parameters(), lr=0.01)
for epoch in range(40):
    total = 0
    for [batch] in loader:
        first, second = normalize(encoder(view(batch))), normalize(encoder(view(batch)))
        loss = cross_entropy(first @ second.T / 0.1, torch.arange(len(batch)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
    print(epoch, float(total) / len(loader))
