"""``Seq2Seq``: the interface of encoder–decoder models that the rest of the package uses.

    memory = model.encode(source, mask)            once per source
    state  = model.init_state(memory)              before the first target token
    step   = model.step(previous, state)           logits, next state, attention; once per token

Training, teacher forcing, minimum-risk training and every search use only these methods and the
attribute ``output``. A user-defined model that derives from ``Seq2Seq`` and defines ``encode``,
``init_state``, ``advance`` and ``output`` therefore works everywhere the built-in models do; the
other members have defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from flambeau.errors import InputError


@dataclass(frozen=True)
class Memory:
    """The encoder's output for a batch of sources.

    Attributes:
        values: ``(batch, source, size)``.
        mask: bool ``(batch, source)``, True at tokens and False at padding.
        summary: Input of the decoder's first state: a tensor, a nested structure of tensors with
            the batch as their first axis, or None.
    """

    values: Tensor
    mask: Tensor
    summary: Any = None


T = TypeVar("T")


@dataclass(frozen=True)
class PerSource(Generic[T]):
    """A part of a decoder state that depends on the source only, such as keys of its attention.

    Beam search extends several hypotheses of a source at once. It keeps this part once per source,
    and does not copy it from step to step; every other tensor of the state has a row per
    hypothesis, those of one source one after the other.

    Attributes:
        value: A tensor or a nested structure of tensors with the sources as their first axis.
    """

    value: T


class Step(NamedTuple):
    """The result of one decoder step.

    Attributes:
        logits: ``(batch, vocabulary)``.
        state: Decoder state after the step.
        attention: Weights over the source, ``(batch, source)``, or None.
    """

    logits: Tensor
    state: Any
    attention: Tensor | None


class Seq2Seq(nn.Module):
    """The base class of encoder–decoder models.

    A subclass must define:

    - ``encode(source, mask)``, ``init_state(memory)`` and ``advance(previous, state)``;
    - ``output``, a module from the features of ``advance`` to logits ``(…, vocabulary)``.

    It may override:

    - ``features``, to compute all target positions in one call;
    - ``target_embeddings``, to support ``TeacherForcing(feed="gumbel")`` and ``feed="soft"``;
    - ``teacher_forcing_passes``.

    A decoder state is a tensor or a nested structure (dataclass, tuple, list, dictionary) of
    tensors. The batch is the first axis of each of them, so that `select` can reorder hypotheses.
    What depends on the source only may be in a `PerSource`; ``advance`` then gets several
    consecutive rows for each of its rows.

    Attributes:
        output: The output layer. If it is a plain ``nn.Linear``, training computes the loss without
            storing all logits.
        teacher_forcing_passes: The value used if ``TeacherForcing.passes`` is None, when the
            decoder reads some predictions in training. None predicts token by token with
            ``advance``. A number n predicts all tokens n times with ``features`` before the pass
            that is trained; set it to 1 in a model whose ``features`` is much faster than calling
            ``advance`` for each token.
    """

    output: nn.Module
    teacher_forcing_passes: ClassVar[int | None] = None

    def encode(self, source: Tensor, mask: Tensor) -> Memory:
        """Encode a batch of sources.

        Args:
            source: Token ids, int64 ``(batch, source)``.
            mask: bool ``(batch, source)``, True at tokens; padding is at the end.
        """
        raise NotImplementedError(f"{type(self).__name__} must define encode(source, mask).")

    def init_state(self, memory: Memory) -> Any:
        """Return the decoder state before the first target token."""
        raise NotImplementedError(f"{type(self).__name__} must define init_state(memory).")

    def advance(self, previous: Tensor, state: Any) -> tuple[Tensor, Any, Tensor | None]:
        """Run the decoder for one target position.

        Args:
            previous: The previous target token, ids int64 ``(batch,)``; the begin token at the
                first position. A model that defines ``target_embeddings`` also gets embeddings,
                float ``(batch, size)``.
            state: The decoder state before this position.

        Returns:
            Features ``(batch, size)``, the input of ``output``; the state after this position; and
            attention weights over the source ``(batch, source)``, or None.
        """
        raise NotImplementedError(f"{type(self).__name__} must define advance(previous, state).")

    def step(self, previous: Tensor, state: Any) -> Step:
        """Run the decoder for one target position and return logits; see `advance`."""
        features, state, attention = self.advance(previous, state)
        return Step(self.output(features), state, attention)

    def features(self, memory: Memory, previous: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute the features of all target positions from given previous tokens.

        The default calls ``advance`` for each position.

        Args:
            memory: The encoded sources.
            previous: The previous token of each position, ids int64 ``(batch, target)``, the begin
                token first. A model that defines ``target_embeddings`` also gets embeddings, float
                ``(batch, target, size)``.

        Returns:
            Features ``(batch, target, size)``, and attention weights ``(batch, target, source)``
            or None.
        """
        state = self.init_state(memory)
        found: list[Tensor] = []
        weights: list[Tensor] = []
        for position in range(previous.shape[1]):
            features, state, attention = self.advance(previous[:, position], state)
            found.append(features)
            if attention is not None:
                weights.append(attention)
        return torch.stack(found, 1), torch.stack(weights, 1) if weights else None

    def target_embeddings(self) -> Tensor | None:
        """Return the embedding matrix of the target vocabulary, ``(vocabulary, size)``, or None.

        Only ``TeacherForcing(feed="gumbel")`` and ``feed="soft"`` need it: their decoder inputs are
        weighted means of its rows, so a model that returns it must accept such embeddings in
        ``advance`` and ``features``. The default is None: the decoder takes token ids only, and
        these two feeds are refused.
        """
        return None

    def forward(self, source: Tensor, mask: Tensor, previous: Tensor) -> Tensor:
        """Return the logits ``(batch, target, vocabulary)`` for given previous tokens."""
        features, _ = self.features(self.encode(source, mask), previous)
        return self.output(features)


def select(state: Any, rows: Tensor) -> Any:
    """Return the rows ``rows`` of the batch in a decoder state or memory.

    Args:
        state: Tensors with the batch as their first axis, in dataclasses, tuples, lists and
            dictionaries; numbers, strings and None are unchanged.
        rows: int64 ``(n,)``; a row may occur more than once.

    Raises:
        InputError: The state holds an object of another type.
    """
    return select_hypotheses(state, rows, rows)


def select_hypotheses(state: Any, rows: Tensor, sources: Tensor | None = None) -> Any:
    """Return the decoder state of several hypotheses per source for the rows ``rows``.

    Args:
        state: As for `select`.
        rows: Rows of the hypotheses, int64 ``(n,)``.
        sources: Rows of what is in a `PerSource`, int64; None keeps it, without a copy.

    Raises:
        InputError: The state holds an object of another type.
    """
    return _mapped(
        state,
        lambda value: value.index_select(0, rows),
        lambda value: value if sources is None else select(value, sources),
    )


def _mapped(
    state: Any, of_tensor: Callable[[Tensor], Tensor], of_source: Callable[[Any], Any]
) -> Any:
    """Return the state with other tensors; ``of_source`` maps the values in `PerSource`."""
    if isinstance(state, Tensor):
        return of_tensor(state)
    if state is None or isinstance(state, int | float | str):
        return state
    if isinstance(state, PerSource):
        return PerSource(of_source(state.value))
    if is_dataclass(state) and not isinstance(state, type):
        names = [each.name for each in fields(state)]
        return replace(
            state, **{name: _mapped(getattr(state, name), of_tensor, of_source) for name in names}
        )
    if isinstance(state, dict):
        return {name: _mapped(value, of_tensor, of_source) for name, value in state.items()}
    if isinstance(state, tuple | list):
        parts = [_mapped(value, of_tensor, of_source) for value in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    raise InputError(
        f"The decoder state holds a {type(state).__name__}, whose batch rows cannot be selected. "
        "Keep tensors with the batch as their first axis in dataclasses, tuples, lists or "
        "dictionaries."
    )


def check_batch_axis(state: Any, batch: int) -> None:
    """Check that the batch is the first axis of every tensor in a decoder state.

    Raises:
        InputError: A tensor's first axis has another size, as in torch's recurrent layers, whose
            states are ``(layers, batch, size)``.
    """
    if isinstance(state, Tensor):
        if state.ndim == 0 or state.shape[0] != batch:
            raise InputError(
                f"The decoder state holds a tensor of shape {tuple(state.shape)} for a batch of "
                f"{batch}. Keep the batch as the first axis of every tensor in it: transpose the "
                "(layers, batch, size) states of nn.GRU and nn.LSTM."
            )
        return
    parts: list[Any] = []
    if is_dataclass(state) and not isinstance(state, type):
        parts = [getattr(state, each.name) for each in fields(state)]
    elif isinstance(state, dict):
        parts = list(state.values())
    elif isinstance(state, tuple | list):
        parts = list(state)
    for part in parts:
        check_batch_axis(part, batch)
