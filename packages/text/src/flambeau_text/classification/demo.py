"""Demo data: sentences of Python's own help, by the topic that they explain."""

from __future__ import annotations

import re

import torch

from flambeau.data.split_request import SplitRequest
from flambeau.errors import InputError
from flambeau.random import generator
from flambeau_text.classification.assemble import LabelledTexts, assemble
from flambeau_text.classification.data import TextData
from flambeau_text.classification.options import TextOptions

_TOPICS = {
    "debugger": ("debugger",),
    "special methods": ("specialnames",),
    "statements": ("compound", "assignment", "import"),
    "strings": ("strings", "string-methods", "formatstrings"),
}
_SENTENCE_ENDS = re.compile(r"(?<=[.!?:])\s+(?=[A-Z])")
_FEWEST_WORDS = 8


def python_help(n_samples: int = 2_000, seed: int = 0) -> TextData:
    """Return sentences of the help texts of Python, labelled with their topic.

    They are in ``pydoc_data.topics`` (``help("debugger")``); topics are the debugger, special
    methods, statements and strings.

    Args:
        n_samples: Number of sentences, drawn at random; fewer if there are not so many.
        seed: Seed of the draw and of the split.

    Raises:
        InputError: Fewer than 20 sentences are wanted.
    """
    if n_samples < 20:
        raise InputError(f"n_samples is {n_samples}; the demo needs at least 20 sentences.")
    from pydoc_data.topics import topics

    labels: dict[str, str] = {}
    for label, names in _TOPICS.items():
        for name in names:
            for sentence in _sentences(topics[name]):
                labels.setdefault(sentence, label)
    texts = list(labels)
    order = torch.randperm(len(texts), generator=generator(seed, "demo"))[:n_samples].tolist()
    found = LabelledTexts(
        [texts[row] for row in order],
        [labels[texts[row]] for row in order],
        [f"sentence {row}" for row in order],
    )
    options = TextOptions(classes=list(_TOPICS))
    return TextData(*assemble(found, SplitRequest(0.2, 0.1, None, seed), options))


def _sentences(text: str) -> list[str]:
    """Return the sentences of prose in a help text, without headings, grammar and code."""
    found: list[str] = []
    for block in text.split("\n\n"):
        for sentence in _SENTENCE_ENDS.split(" ".join(block.split())):
            words = sentence.split()
            if len(words) >= _FEWEST_WORDS and sum(map(str.isalpha, words)) > len(words) / 2:
                found.append(sentence)
    return found
