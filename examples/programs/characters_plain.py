"""Train a character model and let it write, in plain PyTorch."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

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


torch.manual_seed(0)
alphabet = sorted(set(TEXT))
codes = torch.tensor([alphabet.index(character) for character in TEXT])
windows = codes.unfold(0, LENGTH + 1, 4)
train, valid = random_split(TensorDataset(windows[:, :-1], windows[:, 1:]), [0.8, 0.2])
loader = DataLoader(train, batch_size=32, shuffle=True)
model = CharacterModel(len(alphabet))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
for epoch in range(5):
    model.train()
    for x, y in loader:
        loss = cross_entropy(model(x).transpose(1, 2), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        x, y = valid[:]
        print(epoch, cross_entropy(model(x).transpose(1, 2), y).item())

written = codes[:LENGTH].tolist()
with torch.no_grad():
    for _ in range(60):
        written.append(model(torch.tensor([written]))[0, -1].argmax().item())
print("".join(alphabet[code] for code in written))
