"""Train a variational autoencoder on points near a circle."""

import torch
from torch import nn

from flambeau import Learner, TensorData
from flambeau.task import CustomLoss


class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 4))
        self.decoder = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x):
        mean, log_var = self.encoder(x).chunk(2, 1)
        latent = mean + torch.randn_like(mean) * (log_var / 2).exp()
        return self.decoder(latent), mean, log_var


def elbo_terms(outputs, batch):
    decoded, mean, log_var = outputs
    error = (decoded - batch.input).square().sum(1) / 0.02
    divergence = (mean.square() + log_var.exp() - 1 - log_var).sum(1) / 2
    return {"error": error, "divergence": divergence}


torch.manual_seed(0)
angle = 2 * torch.pi * torch.rand(2000, 1)
points = torch.cat([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(2000, 2)
vae = Vae()
learner = Learner(TensorData.from_tensors(points), vae, task=CustomLoss(elbo_terms))
learner.fit(20, lr=0.01)
