"""Which of the three word matrices are one: source embedding, target embedding, output layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from flambeau.errors import ArgumentError, InputError, nearest
from flambeau_text.tokenization.tokenizer import PADDING_ID

Tie = Literal["none", "2way", "3way"]
TIES = ("none", "2way", "3way")


@dataclass(frozen=True)
class Words:
    """The word matrices of a model.

    Attributes:
        source: Embedding of source words.
        target: Embedding of target words; the same object with "3way".
        output: Features to logits; its weight is the target embedding's with "2way" and "3way".
    """

    source: nn.Embedding
    target: nn.Embedding
    output: nn.Linear


def make_words(source_vocab: int, target_vocab: int, size: int, tie: str) -> Words:
    """Embeddings and output layer, tied as asked.

    Rows start with deviation ``size ** -0.5``: as embeddings they are small, as output weights
    they give logits of size 1 for features of size 1.

    Args:
        source_vocab: Source words.
        target_vocab: Target words.
        size: Numbers in an embedding, and in the features before the output layer.
        tie: "none"; "2way" ties target embedding and output; "3way" all, for a joint vocabulary.

    Raises:
        ArgumentError: ``tie`` is none of these.
        InputError: "3way" with vocabularies of different size.

    Source:
        Press and Wolf, "Using the Output Embedding to Improve Language Models" (arXiv 1608.05859),
        also for the names.
    """
    if tie not in TIES:
        raise ArgumentError(f"tie is {tie!r}. {nearest(str(tie), TIES)}")
    if tie == "3way" and source_vocab != target_vocab:
        raise InputError(
            f"tie='3way' shares one matrix among both sides, but they have {source_vocab} and "
            f"{target_vocab} words. Take a joint vocabulary, or tie='2way'."
        )
    target = _embedding(target_vocab, size)
    source = target if tie == "3way" else _embedding(source_vocab, size)
    output = nn.Linear(size, target_vocab)
    nn.init.zeros_(output.bias)
    if tie == "none":
        nn.init.normal_(output.weight, std=size**-0.5)
    else:
        output.weight = target.weight
    return Words(source, target, output)


def _embedding(vocab: int, size: int) -> nn.Embedding:
    made = nn.Embedding(vocab, size)
    nn.init.normal_(made.weight, std=size**-0.5)
    nn.init.zeros_(made.weight[PADDING_ID : PADDING_ID + 1].detach())
    return made


def embedded(embedding: nn.Embedding, words: Tensor) -> Tensor:
    """The embeddings of word numbers; what is embedded already (floats) stays as it is."""
    return words if words.is_floating_point() else embedding(words)
