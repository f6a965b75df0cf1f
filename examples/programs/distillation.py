"""Train a small network on the outputs of a large one (distillation)."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flambeau import Classification, Learner, TensorData


class Distillation(Classification):
    def loss(self, outputs, batch):
        total, weight = super().loss(outputs, batch)
        with torch.no_grad():
            soft = (teacher.model.eval()(batch.input) / 2).softmax(1)
        return total + cross_entropy(outputs / 2, soft, reduction="sum"), weight


torch.manual_seed(0)
x = torch.randn(2000, 8)
data = TensorData.from_tensors(x, (x[:, 0] * x[:, 1] > 0).long())
large = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
student = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
teacher = Learner(data, large)
teacher.fit(10, lr=0.01)
Learner(data, student, task=Distillation(["below", "above"])).fit(10, lr=0.01)
