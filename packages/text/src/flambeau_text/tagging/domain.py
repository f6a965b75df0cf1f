"""``DOMAIN``: the record that registers tags of words with flambeau's core."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from flambeau.domain import DATA_COMMANDS, CliOption, Domain, Recognition
from flambeau.random import generator
from flambeau_text.file_kinds import CONLL_SUFFIXES
from flambeau_text.huggingface.encoder import encoder_tagger
from flambeau_text.tagging.checks import CHECKS
from flambeau_text.tagging.data import TagData
from flambeau_text.tagging.network import gru_tagger
from flambeau_text.tagging.preprocess import TagPreprocessor
from flambeau_text.tagging.rules import RULES
from flambeau_text.tagging.task import TagTask

_NAMES, _PLACES = ("Ann", "Bob", "Eve", "Kim Lee", "Max Ray"), ("Rome", "Oslo", "New York", "Lima")
_FRAMES = ("{0} sees {1}", "in {1} {0} sings", "{0} and a dog walk to {1}", "no dog was in {1}")


def recognise(path: Path, options: Mapping[str, str]) -> Recognition | None:
    """Recognise files in the format of CoNLL by their ending."""
    if path.is_file() and path.name.lower().removesuffix(".gz").endswith(CONLL_SUFFIXES):
        return Recognition("sure", "It is a file of words with tags, by its ending.")
    return None


def made_sentences(n_samples: int = 400, seed: int = 0) -> TagData:
    """Return made-up sentences with names of persons and places, with tags of entities.

    Args:
        n_samples: Number of sentences.
        seed: Seed of the sentences and of the split.
    """
    draws = generator(seed, "tag demo")

    def choose(options: tuple[str, ...]) -> str:
        return options[int(torch.randint(len(options), (1,), generator=draws))]

    sentences: list[list[str]] = []
    tags: list[list[str]] = []
    for _ in range(n_samples):
        names = {"{0}": ("PER", choose(_NAMES)), "{1}": ("LOC", choose(_PLACES))}
        words: list[str] = []
        own: list[str] = []
        for word in choose(_FRAMES).split():
            kind, text = names.get(word, ("", word))
            parts = text.split()
            words += parts
            own += [f"{'I' if at else 'B'}-{kind}" if kind else "O" for at in range(len(parts))]
        sentences.append(words)
        tags.append(own)
    return TagData.from_arrays(sentences, tags, valid=0.2, test=0.1, seed=seed)


DATA_OPTIONS = (
    CliOption("words", str, "Column with the words: a name, or in CoNLL a number from 0.", "words"),
    CliOption(
        "sentence", str, "Column that tells sentences apart, for one word per row.", "sentence"
    ),
    CliOption("valid", str, "Share or number of sentences for validation, or a file.", "valid"),
    CliOption("test", str, "Share or number of sentences for the final test, or a file.", "test"),
    CliOption("tokenizer", str, "Tokenizer: bpe, unigram, word or character.", "tokenizer"),
    CliOption("vocab-size", int, "Size of the vocabulary, in tokens.", "vocab_size"),
    CliOption("normalization", str, "Unicode form: nfc, nfkc or none.", "normalization"),
    CliOption(
        "language-model",
        str,
        "Folder of an encoder of Hugging Face to start from.",
        "language_model",
    ),
    CliOption("split", str, "Column of a table with train, valid or test.", "split"),
)

DOMAIN = Domain(
    name="tags",
    data_classes={"TagData": TagData},
    models={"gru": gru_tagger, "hf_encoder": encoder_tagger},
    tasks={TagTask.builder: TagTask},
    rules=RULES,
    checks=CHECKS,
    preprocessors={"tag_preprocessor": TagPreprocessor},
    recognise=recognise,
    cli_options=dict.fromkeys(DATA_COMMANDS, DATA_OPTIONS),
    demo=made_sentences,
)
