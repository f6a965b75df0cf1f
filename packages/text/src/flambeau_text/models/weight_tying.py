"""Build source embedding, target embedding and output layer, which may share their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_text.tokenization.tokenizer import PADDING_ID

Tie = Literal["none", "2way", "3way"]
TIES = ("none", "2way", "3way")


@dataclass(frozen=True)
class EmbeddingLayers:
    """The layers of a model whose weights have a row per token.

    Attributes:
        source: Embedding of source tokens.
        target: Embedding of target tokens; the same module as ``source`` with 3-way tying.
        output: Maps features to logits; shares the weight of ``target`` with 2-way and 3-way tying.
    """

    source: nn.Embedding
    target: nn.Embedding
    output: nn.Linear


def make_embeddings(source_vocab: int, target_vocab: int, size: int, tie: str) -> EmbeddingLayers:
    """Build the embeddings and the output layer.

    Weights are drawn with standard deviation ``size ** -0.5``: used as output weights, they give
    logits of variance 1 for features of variance 1.

    Args:
        source_vocab: Size of the source vocabulary.
        target_vocab: Size of the target vocabulary.
        size: Width of the embeddings and of the features before the output layer.
        tie: Weight tying: "none"; "2way" shares target embedding and output weights; "3way" shares
            all three and needs a joint vocabulary.

    Raises:
        ArgumentError: ``tie`` has another value.
        InputError: ``tie`` is "3way", but the vocabularies have different sizes.

    Source:
        Press and Wolf, "Using the Output Embedding to Improve Language Models" (arXiv 1608.05859),
        which also names the kinds of tying.
    """
    if tie not in TIES:
        raise ArgumentError(f"tie is {tie!r}. {did_you_mean(str(tie), TIES)}")
    if tie == "3way" and source_vocab != target_vocab:
        raise InputError(
            f"tie='3way' needs one vocabulary for both sides, but the source vocabulary has "
            f"{source_vocab} tokens and the target vocabulary {target_vocab}. Use a "
            "joint vocabulary, or tie='2way'."
        )
    target = _embedding(target_vocab, size)
    source = target if tie == "3way" else _embedding(source_vocab, size)
    output = nn.Linear(size, target_vocab)
    nn.init.zeros_(output.bias)
    if tie == "none":
        nn.init.normal_(output.weight, std=size**-0.5)
    else:
        output.weight = target.weight
    return EmbeddingLayers(source, target, output)


def _embedding(vocab: int, size: int) -> nn.Embedding:
    layer = nn.Embedding(vocab, size)
    nn.init.normal_(layer.weight, std=size**-0.5)
    nn.init.zeros_(layer.weight[PADDING_ID : PADDING_ID + 1].detach())
    return layer


def embed(embedding: nn.Embedding, tokens: Tensor) -> Tensor:
    """Return the embeddings of token ids; floating-point inputs are returned unchanged."""
    return tokens if tokens.is_floating_point() else embedding(tokens)
