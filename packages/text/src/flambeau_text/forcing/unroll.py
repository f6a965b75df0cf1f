"""``decoder_features``: unroll the decoder with inputs from the reference and from predictions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau_text.forcing.decoder_inputs import (
    TOKEN_FEEDS,
    DrawKeys,
    predicted_input,
    reference_positions,
    required_embeddings,
)
from flambeau_text.forcing.teacher_forcing import TeacherForcing
from flambeau_text.models.seq2seq import Memory, Seq2Seq


def decoder_features(
    model: Seq2Seq,
    memory: Memory,
    reference: Tensor,
    probability: float,
    forcing: TeacherForcing,
    keys: DrawKeys,
) -> Tensor:
    """Compute the decoder's features ``(batch, target, size)`` under teacher forcing.

    With probability 1 the result is bitwise equal to that of ``model.features``, and no random
    numbers are drawn.

    Args:
        model: The model, in training mode.
        memory: The encoded sources.
        reference: The reference tokens that precede each position, int64 ``(batch, target)``, the
            begin token first.
        probability: Probability of reading the reference token.
        forcing: Settings for the positions at which a prediction is read.
        keys: Keys of the random draws.

    Raises:
        InputError: ``forcing`` feeds embeddings, but the model takes token ids only.
    """
    if probability >= 1.0:
        return model.features(memory, reference)[0]
    embeddings = required_embeddings(model, forcing)
    inputs = reference if embeddings is None else F.embedding(reference, embeddings)
    from_reference = reference_positions(keys, reference.shape[1], probability, forcing)
    if embeddings is not None:
        from_reference = from_reference.unsqueeze(2)
    given = _Inputs(inputs, from_reference, embeddings, forcing, keys)
    passes = model.teacher_forcing_passes if forcing.passes is None else forcing.passes
    if passes is None:
        return _token_by_token(model, memory, given)
    return _in_passes(model, memory, given, passes)


class _Inputs:
    """The reference inputs of a batch, and settings by which predictions become inputs.

    Args:
        reference: Token ids ``(batch, target)`` or embeddings ``(batch, target, size)``.
        from_reference: bool, with as many axes as ``reference``; True where the reference is read.
        embeddings: Embedding matrix ``(vocabulary, size)``, or None if inputs are token ids.
        forcing: How a prediction becomes an input.
        keys: Keys of the random draws.
    """

    def __init__(
        self,
        reference: Tensor,
        from_reference: Tensor,
        embeddings: Tensor | None,
        forcing: TeacherForcing,
        keys: DrawKeys,
    ) -> None:
        self.reference, self.from_reference = reference, from_reference
        self.embeddings, self.forcing, self.keys = embeddings, forcing, keys
        self.passes_gradients = forcing.feed not in TOKEN_FEEDS and torch.is_grad_enabled()

    def predicted(self, model: Seq2Seq, features: Tensor, position: int) -> Tensor:
        """Return the input of position ``position + 1``, made from the features at ``position``."""
        with torch.set_grad_enabled(self.passes_gradients):
            logits = model.output(features)
            return predicted_input(logits, self.forcing, self.keys, position, self.embeddings)


def _token_by_token(model: Seq2Seq, memory: Memory, inputs: _Inputs) -> Tensor:
    state = model.init_state(memory)
    found: list[Tensor] = []
    length = inputs.reference.shape[1]
    read = inputs.reference[:, 0]
    for position in range(length):
        features, state, _ = model.advance(read, state)
        found.append(features)
        if position + 1 < length:
            own = inputs.predicted(model, features, position)
            after = position + 1
            read = torch.where(inputs.from_reference[:, after], inputs.reference[:, after], own)
    return torch.stack(found, 1)


def _in_passes(model: Seq2Seq, memory: Memory, inputs: _Inputs, passes: int) -> Tensor:
    """Predict all tokens ``passes`` times; a pass reads the predictions of the previous pass.

    Then a last pass computes the features. Only this pass has gradients, except with the feeds
    "gumbel" and "soft".
    """
    reference = read = inputs.reference
    length = reference.shape[1]
    for _ in range(passes):
        with torch.set_grad_enabled(inputs.passes_gradients):
            features, _ = model.features(memory, read)
            own = [
                inputs.predicted(model, features[:, position], position)
                for position in range(length - 1)
            ]
        shifted = torch.cat([reference[:, :1], torch.stack(own, 1)], 1) if own else reference
        read = torch.where(inputs.from_reference, reference, shifted)
    return model.features(memory, read)[0]
