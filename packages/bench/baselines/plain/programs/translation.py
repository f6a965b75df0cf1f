"""Translate captions from English to German with attention.

Defaults: the initial weights, the betas of Adam.
"""

import re
from collections import Counter
from pathlib import Path

import sacrebleu
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, TensorDataset


def read(name):
    lines = Path("captions", name).read_text().splitlines()
    return [["<s>", *re.findall(r"\w+|[^\w\s]", line), "</s>"] for line in lines]


def vocabulary(sentences):
    counts = Counter(word for sentence in sentences for word in sentence)
    return ["<pad>", "<unk>", *(word for word, count in counts.items() if count > 1)]


def encode(sentences, words):
    ids = {word: index for index, word in enumerate(words)}
    rows = [torch.tensor([ids.get(word, 1) for word in sentence]) for sentence in sentences]
    return pad_sequence(rows, batch_first=True)


class Translator(nn.Module):
    def __init__(self, n_source, n_target, size=128):
        super().__init__()
        self.source = nn.Embedding(n_source, size)
        self.target = nn.Embedding(n_target, size)
        self.encoder = nn.GRU(size, size, batch_first=True)
        self.decoder = nn.GRU(size, size, batch_first=True)
        self.output = nn.Linear(2 * size, n_target)

    def forward(self, source, target):
        memory, state = self.encoder(self.source(source))
        decoded, _ = self.decoder(self.target(target), state)
        mask = (source > 0).unsqueeze(1)
        context = scaled_dot_product_attention(decoded, memory, memory, mask)
        return self.output(torch.cat([decoded, context], 2))


english, german = read("train.en"), read("train.de")
english_words, german_words = vocabulary(english), vocabulary(german)
source, target = encode(english, english_words), encode(german, german_words)
loader = DataLoader(TensorDataset(source, target), batch_size=32, shuffle=True)
model = Translator(len(english_words), len(german_words))
optimizer = torch.optim.Adam(model.parameters(), lr=0.003)

for epoch in range(6):
    for x, y in loader:
        logits = model(x, y[:, :-1])
        loss = cross_entropy(logits.transpose(1, 2), y[:, 1:], ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())

source = encode(read("test.en"), english_words)
tokens = torch.full((len(source), 1), german_words.index("<s>"))
with torch.no_grad():
    for _ in range(20):
        tokens = torch.cat([tokens, model(source, tokens)[:, -1:].argmax(2)], 1)
translations = [
    " ".join(german_words[token] for token in row).partition(" </s>")[0] for row in tokens[:, 1:]
]
references = Path("captions/test.de").read_text().splitlines()
print(sacrebleu.corpus_bleu(translations, [references]).score)
