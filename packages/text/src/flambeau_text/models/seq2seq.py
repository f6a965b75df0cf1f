"""``Seq2Seq``: the three methods by which training, forcing and every search reach a model.

    memory = model.encode(source, mask)            once a sentence
    state  = model.init_state(memory)              before the first word
    step   = model.step(previous, state)           logits, next state, attention; once a word

Another architecture that defines these can be trained, forced, searched and exported as ours are.
States and memories are dataclasses, tuples or dictionaries of tensors whose first axis is the
batch, so that `select` can give each sentence, or each hypothesis of a beam, the state it needs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flambeau.errors import InputError


@dataclass(frozen=True)
class Memory:
    """What the encoder has made of a batch of sources.

    Attributes:
        values: ``(batch, source, size)``.
        mask: bool ``(batch, source)``, True where a position counts.
        summary: What the decoder's first state is made of, a tensor or a tuple of such, or None.
    """

    values: Tensor
    mask: Tensor
    summary: Any = None


class Step(NamedTuple):
    """What one step of a decoder gives.

    Attributes:
        logits: ``(batch, vocabulary)``.
        state: For the next step.
        attention: Weights over the source, ``(batch, source)``, or None.
    """

    logits: Tensor
    state: Any
    attention: Tensor | None


class Seq2Seq(nn.Module):
    """The base of encoder–decoder models.

    Attributes:
        output: The last layer: features to logits. A subclass makes it.
    """

    output: nn.Module

    def encode(self, source: Tensor, mask: Tensor) -> Memory:
        """The memory of sources.

        Args:
            source: Token numbers, int64 ``(batch, source)``.
            mask: bool ``(batch, source)``, True where a token counts; padding is at the end.
        """
        raise NotImplementedError(f"{type(self).__name__} must define encode(source, mask).")

    def init_state(self, memory: Memory) -> Any:
        """The state before the first word."""
        raise NotImplementedError(f"{type(self).__name__} must define init_state(memory).")

    def advance(self, previous: Tensor, state: Any) -> tuple[Tensor, Any, Tensor | None]:
        """One word on: features of the next word, the state after it, attention.

        Args:
            previous: The word before, int64 ``(batch,)``, or its embedding ``(batch, size)``.
            state: After the word before that.

        Returns:
            Features ``(batch, size)``, which ``output`` makes logits of; the state; and weights
            over the source ``(batch, source)`` or None.
        """
        raise NotImplementedError(f"{type(self).__name__} must define advance(previous, state).")

    def step(self, previous: Tensor, state: Any) -> Step:
        """Logits of the next word, and the state after it; see `advance`."""
        features, state, attention = self.advance(previous, state)
        return Step(self.output(features), state, attention)

    def features(self, memory: Memory, words: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of every next word where the words before are given: teacher forcing.

        A subclass that can compute all words at once overrides it.

        Args:
            memory: Of the sources.
            words: The words before, int64 ``(batch, target)`` from the begin token on, or their
                embeddings ``(batch, target, size)``.

        Returns:
            Features ``(batch, target, size)``, and attention ``(batch, target, source)`` or None.
        """
        state = self.init_state(memory)
        found: list[Tensor] = []
        attended: list[Tensor] = []
        for place in range(words.shape[1]):
            features, state, attention = self.advance(words[:, place], state)
            found.append(features)
            if attention is not None:
                attended.append(attention)
        return torch.stack(found, 1), torch.stack(attended, 1) if attended else None

    def forward(self, source: Tensor, mask: Tensor, words: Tensor) -> Tensor:
        """Logits ``(batch, target, vocabulary)`` where the words before are given."""
        features, _ = self.features(self.encode(source, mask), words)
        return self.output(features)


def select(state: Any, rows: Tensor) -> Any:
    """The state of the sentences ``rows``, int64 ``(n,)``; one may be named several times.

    Raises:
        InputError: The state holds something else than tensors in dataclasses, tuples, lists and
            dictionaries.
    """
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if state is None or isinstance(state, int | float | str):
        return state
    if is_dataclass(state) and not isinstance(state, type):
        parts = {each.name: select(getattr(state, each.name), rows) for each in fields(state)}
        return replace(state, **parts)
    if isinstance(state, dict):
        return {name: select(value, rows) for name, value in state.items()}
    if isinstance(state, tuple | list):
        parts = [select(value, rows) for value in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    raise InputError(
        f"A decoder's state holds a {type(state).__name__}, of which sentences cannot be selected. "
        "Keep tensors with the batch first in dataclasses, tuples, lists or dictionaries."
    )
