"""Train a variational autoencoder on points near a circle, in plain PyTorch."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 4))
        self.decoder = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x):
        mean, log_var = self.encoder(x).chunk(2, 1)
        latent = mean + torch.randn_like(mean) * (log_var / 2).exp()
        return self.decoder(latent), mean, log_var


def elbo_terms(outputs, x):
    decoded, mean, log_var = outputs
    error = (decoded - x).square().sum(1) / 0.02
    divergence = (mean.square() + log_var.exp() - 1 - log_var).sum(1) / 2
    return error.mean(), divergence.mean()


torch.manual_seed(0)
angle = 2 * torch.pi * torch.rand(2000, 1)
points = torch.cat([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(2000, 2)
train, valid = random_split(TensorDataset(points), [1600, 400])
loader = DataLoader(train, batch_size=32, shuffle=True)
vae = Vae()
optimizer = torch.optim.AdamW(vae.parameters(), lr=0.01)
for epoch in range(20):
    vae.train()
    for [x] in loader:
        error, divergence = elbo_terms(vae(x), x)
        optimizer.zero_grad()
        (error + divergence).backward()
        optimizer.step()
    vae.eval()
    with torch.no_grad():
        [x] = valid[:]
        error, divergence = elbo_terms(vae(x), x)
    print(epoch, error.item(), divergence.item())
