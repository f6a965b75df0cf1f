"""Recurrent layers against torch's, and dropout with one mask per sequence."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flambeau_text.models.recurrent_layers import SequenceDropout, is_cast, run_layers
from flambeau_text.models.rnn_encoder import RnnEncoder

LENGTHS = torch.tensor([7, 2, 4, 1])
MASK = torch.arange(9) < LENGTHS.unsqueeze(1)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_encoder_equals_torchs_packed_layers(cell: str, layers: int) -> None:
    torch.manual_seed(0)
    encoder = RnnEncoder(3, 5, layers, cell, 0.0).double()
    words = torch.randn(4, 9, 3, dtype=torch.float64, requires_grad=True)
    values, ends = encoder(words, MASK)
    packed = pack_padded_sequence(words, LENGTHS, batch_first=True, enforce_sorted=False)
    outputs, last = encoder.layers(packed)
    wanted, _ = pad_packed_sequence(outputs, batch_first=True, total_length=9)
    torch.testing.assert_close(values, wanted, atol=1e-12, rtol=0)
    parts = last if isinstance(last, tuple) else (last,)
    for found, part in zip(ends.values(), parts, strict=True):
        torch.testing.assert_close(found, torch.cat([part[-2], part[-1]], 1), atol=1e-12, rtol=0)
    gradients = []
    for given in (values, wanted):
        total = (given * torch.arange(given.numel()).view_as(given).cos()).sum()
        names = [words, *encoder.parameters()]
        gradients.append(torch.autograd.grad(total, names, allow_unused=True))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_weights_cast_once_equal_float32_within_bf16(kind: type) -> None:
    torch.manual_seed(0)
    layers = kind(6, 8, 2, batch_first=True)
    inputs = torch.randn(4, 5, 6)
    before = [torch.randn(2, 4, 8) for _ in range(2 if kind is nn.LSTM else 1)]
    wanted, after = run_layers(layers, inputs, before)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_cast(inputs)
        found, last = run_layers(layers, inputs, before)
    assert found.dtype == torch.bfloat16
    # bf16 keeps 8 bits, over five steps of two layers.
    torch.testing.assert_close(found.float(), wanted, atol=0.04, rtol=0)
    for one, other in zip(last, after, strict=True):
        torch.testing.assert_close(one.float(), other, atol=0.04, rtol=0)
    found.float().sum().backward()
    assert all(value.grad is not None for value in layers.parameters())


def test_dropout_has_one_mask_for_all_positions() -> None:
    torch.manual_seed(0)
    dropout = SequenceDropout(0.4)
    values = torch.ones(300, 5, 40)
    found = dropout(values)
    assert (found == found[:, :1]).all()
    kept = found != 0
    assert torch.allclose(found[kept], torch.tensor(1 / 0.6))
    n = 300 * 40
    # 4 standard deviations of a share of 12,000 draws.
    assert abs(float(kept[:, 0].float().mean()) - 0.6) < 4 * (0.24 / n) ** 0.5
    assert not torch.equal(dropout(values), found)
    assert dropout.eval()(values) is values
