"""Learn a distance from pairs of samples (a siamese network)."""

import torch
from torch import nn
from torch.nn.functional import pairwise_distance

from flambeau import Learner, TensorData
from flambeau.task import CustomLoss


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, a, b):
        return pairwise_distance(self.body(a), self.body(b))


def contrastive(distance, batch):
    return torch.where(batch.target > 0, distance, (1 - distance).clamp(min=0)).square()


torch.manual_seed(0)
a, b = torch.randn(2, 2000, 8)
same = (a[:, 0] > 0) == (b[:, 0] > 0)
data = TensorData.from_tensors({"a": a, "b": b}, same)
model = Siamese()
learner = Learner(data, model, task=CustomLoss(contrastive))
learner.fit(20, lr=0.01)
