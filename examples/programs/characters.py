"""Train a character model and let it write."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flambeau import Learner, TensorData
from flambeau.task import CustomLoss

TEXT = "she sells sea shells by the sea shore. " * 100
LENGTH = 32


class CharacterModel(nn.Module):
    def __init__(self, n_characters):
        super().__init__()
        self.embedding = nn.Embedding(n_characters, 16)
        self.rnn = nn.GRU(16, 64, batch_first=True)
        self.head = nn.Linear(64, n_characters)

    def forward(self, x):
        return self.head(self.rnn(self.embedding(x))[0])


def character_loss(outputs, batch):
    return cross_entropy(outputs.transpose(1, 2), batch.target, reduction="none")


torch.manual_seed(0)
alphabet = sorted(set(TEXT))
codes = torch.tensor([alphabet.index(character) for character in TEXT])
windows = codes.unfold(0, LENGTH + 1, 4)
data = TensorData.from_tensors(windows[:, :-1], windows[:, 1:])
model = CharacterModel(len(alphabet))
learner = Learner(data, model, task=CustomLoss(character_loss))
learner.fit(5, lr=0.01)

written = codes[:LENGTH].tolist()
with torch.no_grad():
    for _ in range(60):
        written.append(model(torch.tensor([written]))[0, -1].argmax().item())
print("".join(alphabet[code] for code in written))
