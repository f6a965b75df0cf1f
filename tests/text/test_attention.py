"""Attention against torch's implementation, and against loops over NumPy arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from flambeau.errors import ArgumentError, InputError
from flambeau_text.models.attention import (
    ATTENTION,
    AdditiveAttention,
    ConcatAttention,
    DotAttention,
    GeneralAttention,
    make_attention,
    masked_softmax,
)

BATCH, TARGET, SOURCE = 3, 4, 5
MASK = torch.arange(SOURCE) < torch.tensor([5, 2, 3]).unsqueeze(1)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draws, dtype=torch.float64)


def build(kind: str, query: int = 6, memory: int = 6) -> torch.nn.Module:
    torch.manual_seed(3)
    return make_attention(kind, query, memory, 0.0).double()


@pytest.mark.parametrize("scaled", [False, True])
def test_dot_equals_torchs(scaled: bool) -> None:
    query, values = numbers(BATCH, TARGET, 6), numbers(BATCH, SOURCE, 6, seed=1)
    context, _ = DotAttention(6, 6, scaled=scaled)(query, values, values, MASK)
    wanted = F.scaled_dot_product_attention(
        query, values, values, MASK.unsqueeze(1), scale=None if scaled else 1.0
    )
    # The same sums in another order, in float64.
    torch.testing.assert_close(context, wanted, atol=1e-12, rtol=0)


def score(kind: str, layer: torch.nn.Module, query: np.ndarray, key: np.ndarray) -> float:
    """One score by the paper's formula."""
    weights = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    if kind == "dot":
        return float(query @ key)
    if kind == "general":
        return float(query @ weights["key.weight"] @ key)
    if kind == "additive":
        inner = np.tanh(weights["query.weight"] @ query + weights["key.weight"] @ key)
        return float(weights["vector.weight"][0] @ inner)
    inner = np.tanh(weights["mix.weight"] @ np.concatenate([query, key]) + weights["mix.bias"])
    return float(weights["vector.weight"][0] @ inner)


@pytest.mark.parametrize("kind", ATTENTION)
def test_each_kind_equals_its_formula(kind: str) -> None:
    width = 6 if kind == "dot" else 4
    layer = build(kind, 6, width)
    query, values = numbers(BATCH, TARGET, 6), numbers(BATCH, SOURCE, width, seed=1)
    context, weights = layer(query, layer.project(values), values, MASK)
    for row in range(BATCH):
        count = int(MASK[row].sum())
        for position in range(TARGET):
            scores = np.array(
                [
                    score(kind, layer, query[row, position].numpy(), values[row, at].numpy())
                    for at in range(count)
                ]
            )
            shares = np.exp(scores - scores.max())
            shares /= shares.sum()
            np.testing.assert_allclose(
                weights[row, position, :count].detach().numpy(), shares, atol=1e-12
            )
            np.testing.assert_allclose(
                context[row, position].detach().numpy(),
                shares @ values[row, :count].numpy(),
                atol=1e-12,
            )


@pytest.mark.parametrize("kind", ATTENTION)
def test_weights_sum_to_1_and_are_0_at_padding(kind: str) -> None:
    layer = build(kind)
    query, values = numbers(BATCH, TARGET, 6), numbers(BATCH, SOURCE, 6, seed=1)
    values[~MASK] = 1e6
    _, weights = layer(query, layer.project(values), values, MASK)
    assert (weights[~MASK.unsqueeze(1).expand_as(weights)] == 0).all()
    torch.testing.assert_close(weights.sum(2), torch.ones(BATCH, TARGET, dtype=torch.float64))


def test_a_row_of_padding_gives_zeros() -> None:
    layer, values = build("additive"), numbers(1, SOURCE, 6)
    context, weights = layer(
        numbers(1, TARGET, 6),
        layer.project(values),
        values,
        torch.zeros(1, SOURCE, dtype=torch.bool),
    )
    assert (context == 0).all()
    assert (weights == 0).all()


def test_the_softmax_of_half_precision_is_float32() -> None:
    scores = torch.tensor([[[10.0, 10.02]]], dtype=torch.bfloat16)
    assert masked_softmax(scores, None).dtype == torch.float32


@pytest.mark.parametrize("kind", ATTENTION)
def test_gradients(kind: str) -> None:
    layer = build(kind, 3, 3)
    query = numbers(2, 2, 3).requires_grad_()
    values = numbers(2, 3, 3, seed=1).requires_grad_()
    mask = torch.tensor([[True, True, False], [True, True, True]])

    def context(query: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return layer(query, layer.project(values), values, mask)[0]

    assert torch.autograd.gradcheck(context, (query, values))


def test_concat_without_bias_equals_additive() -> None:
    concat, additive = ConcatAttention(6, 4).double(), AdditiveAttention(6, 4).double()
    with torch.no_grad():
        concat.mix.bias.zero_()
        additive.query.weight.copy_(concat.mix.weight[:, :6])
        additive.key.weight.copy_(concat.mix.weight[:, 6:])
        additive.vector.weight.copy_(concat.vector.weight)
    query, values = numbers(BATCH, TARGET, 6), numbers(BATCH, SOURCE, 4, seed=1)
    found = [layer(query, layer.project(values), values, MASK)[0] for layer in (concat, additive)]
    torch.testing.assert_close(found[0], found[1], atol=1e-12, rtol=0)


def test_unequal_widths_and_unknown_names_raise() -> None:
    with pytest.raises(InputError, match=r"6 and 4. Make them equal, or use general"):
        DotAttention(6, 4)
    assert GeneralAttention(6, 4).project(torch.zeros(1, 2, 4)).shape == (1, 2, 6)
    with pytest.raises(ArgumentError, match=r"Unknown attention 'adittive'.*'additive'"):
        make_attention("adittive", 4, 4, 0.0)
