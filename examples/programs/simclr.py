"""Learn features without labels from two random views (SimCLR)."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize

from flambeau import Learner, Task, TensorData


def view(x):
    """Add noise to the features that do not tell the class."""
    return x + torch.cat([0.3 * torch.randn(len(x), 2), 3 * torch.randn(len(x), 6)], 1)


class SimClr(Task):
    def forward(self, model, batch, context):
        return normalize(model(view(batch.input))), normalize(model(view(batch.input)))

    def loss(self, outputs, batch):
        first, second = outputs
        similar = first @ second.T / 0.1
        return cross_entropy(similar, torch.arange(len(batch)), reduction="sum"), len(batch)


torch.manual_seed(0)
label = torch.arange(1000) % 2
x = torch.randn(1000, 8) + 2 * label[:, None]
encoder = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
data = TensorData.from_tensors(x, valid=0)
learner = Learner(data, encoder, task=SimClr(), choices={"batch_size": 100})
learner.fit(40, lr=0.01)
