"""Demo data: English that every Python has, the explanations of its own statements."""

from __future__ import annotations

import torch

from flambeau.data.split_request import SplitRequest
from flambeau.errors import InputError
from flambeau.random import generator
from flambeau_text.language.data import LanguageModelData
from flambeau_text.language.documents import Documents
from flambeau_text.language.options import LanguageOptions
from flambeau_text.language.parts import assemble


def python_topics(n_samples: int = 2_000, seed: int = 0) -> LanguageModelData:
    """Return paragraphs of the help texts of Python's statements and types, as documents.

    They are in ``pydoc_data.topics``, about 700 kB of technical English (``help("assert")``).

    Args:
        n_samples: Number of paragraphs, drawn at random; fewer if there are not so many.
        seed: Seed of the draw and of the split.

    Raises:
        InputError: Fewer than 10 paragraphs are wanted.
    """
    if n_samples < 10:
        raise InputError(f"n_samples is {n_samples}; the demo needs at least 10 paragraphs.")
    from pydoc_data.topics import topics

    # Without repetition: some statements share their text.
    found: dict[str, None] = {}
    for name in sorted(topics):
        for block in topics[name].split("\n\n"):
            text = " ".join(block.split())
            # Headings, grammar and code are short, or have few words.
            if len(text) >= 80 and sum(word.isalpha() for word in text.split()) >= 10:
                found[text + "\n"] = None
    paragraphs = list(found)
    order = torch.randperm(len(paragraphs), generator=generator(seed, "demo"))[:n_samples]
    documents = Documents()
    for row in order.tolist():
        documents.add(paragraphs[row], f"paragraph {row}")
    request = SplitRequest(0.1, 0.1, None, seed, default_valid=0.1)
    return LanguageModelData(*assemble({"train": documents}, request, LanguageOptions()))
