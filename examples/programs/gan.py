"""Train a GAN on numbers around 4."""

from functools import partial

import torch
from torch import nn
from torch.nn.functional import softplus

from flambeau import Learner, Task, TensorData, TrainingOptions

torch.manual_seed(0)
real = 4 + 0.5 * torch.randn(2048, 1)
generator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
critic = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))


def gan_step(model, micro_batches, task, step):
    [batch] = micro_batches
    fake = generator(torch.randn(len(batch), 2))
    critic_loss = (softplus(-critic(batch.input)) + softplus(critic(fake.detach()))).mean()
    step.backward(critic_loss)
    step.update(critic_loss, "critic")
    generator_loss = softplus(-critic(fake)).mean()
    step.backward(generator_loss)
    step.update(generator_loss, "generator")
    step.log(critic=critic_loss, generator=generator_loss)
    return critic_loss + generator_loss


gan = nn.ModuleDict({"critic": critic, "generator": generator})
adam = partial(torch.optim.Adam, betas=(0.5, 0.9))
options = TrainingOptions(gan_step, optimizer={"critic": adam, "generator": adam})
learner = Learner(TensorData.from_tensors(real, valid=0), gan, task=Task(), training=options)
learner.fit(40, lr=0.002, schedule="constant")
print(generator(torch.randn(1000, 2)).mean().item())
