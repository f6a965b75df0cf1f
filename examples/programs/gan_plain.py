"""Train a GAN on numbers around 4, in plain PyTorch."""

import torch
from torch import nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
real = 4 + 0.5 * torch.randn(2048, 1)
generator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
critic = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))
critic_optimizer = torch.optim.Adam(critic.parameters(), lr=0.002, betas=(0.5, 0.9))
generator_optimizer = torch.optim.Adam(generator.parameters(), lr=0.002, betas=(0.5, 0.9))

loader = DataLoader(TensorDataset(real), batch_size=64, shuffle=True, drop_last=True)
for epoch in range(40):
    critic_sum = generator_sum = 0
    for [batch] in loader:
        fake = generator(torch.randn(len(batch), 2))
        critic_loss = (softplus(-critic(batch)) + softplus(critic(fake.detach()))).mean()
        critic_optimizer.zero_grad()
        critic_loss.backward()
        critic_optimizer.step()
        generator_loss = softplus(-critic(fake)).mean()
        generator_optimizer.zero_grad()
        generator_loss.backward()
        generator_optimizer.step()
        critic_sum += critic_loss.detach()
        generator_sum += generator_loss.detach()
    print(epoch, float(critic_sum) / len(loader), float(generator_sum) / len(loader))

with torch.no_grad():
    print(generator(torch.randn(1000, 2)).mean().item())
