"""Translate captions from English to German with attention.

Defaults: words that occur three times and the special tokens, batches of 64, Adam, one cycle.
"""

import re

import sacrebleu
from fastai.text.all import *
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import TensorDataset


def read(name):
    lines = Path("captions", name).read_text().splitlines()
    return [["xxbos", *re.findall(r"\w+|[^\w\s]", line), "xxeos"] for line in lines]


def encode(name, numericalize):
    rows = [numericalize(words) for words in read(name)]
    return pad_sequence(rows, batch_first=True, padding_value=1)


def pairs(name):
    source, target = encode(f"{name}.en", english), encode(f"{name}.de", german)
    return TensorDataset(source, target[:, :-1], target[:, 1:])


class Translator(Module):
    def __init__(self, n_source, n_target, size=128):
        self.source = nn.Embedding(n_source, size)
        self.target = nn.Embedding(n_target, size)
        self.encoder = nn.GRU(size, size, batch_first=True)
        self.decoder = nn.GRU(size, size, batch_first=True)
        self.output = nn.Linear(2 * size, n_target)

    def forward(self, source, target):
        memory, state = self.encoder(self.source(source))
        decoded, _ = self.decoder(self.target(target), state)
        mask = (source != 1).unsqueeze(1)
        context = scaled_dot_product_attention(decoded, memory, memory, mask)
        return self.output(torch.cat([decoded, context], 2))


english, german = Numericalize(), Numericalize()
english.setup(read("train.en"))
german.setup(read("train.de"))
dls = DataLoaders.from_dsets(pairs("train"), pairs("test"))
model = Translator(len(english.vocab), len(german.vocab))
learn = Learner(dls, model, loss_func=CrossEntropyLossFlat(ignore_index=1))
learn.fit_one_cycle(6, 0.005)

source = encode("test.en", english)
tokens = torch.full((len(source), 1), german.vocab.index("xxbos"))
with torch.no_grad():
    for _ in range(20):
        tokens = torch.cat([tokens, model(source, tokens)[:, -1:].argmax(2)], 1)
translations = [" ".join(german.decode(row)).partition(" xxeos")[0] for row in tokens[:, 1:]]
references = Path("captions/test.de").read_text().splitlines()
print(sacrebleu.corpus_bleu(translations, [references]).score)
