"""The loss of words against torch's cross-entropy and its own plain way."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flambeau_text.translation import loss as module
from flambeau_text.translation.loss import token_loss

N, SIZE, VOCAB = 23, 5, 7


class Plain(nn.Module):
    """The same layer, of which the loss does not know that it is linear."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(features)


@pytest.fixture
def parts() -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(SIZE, VOCAB).double()
    features = torch.randn(N, SIZE, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(2, VOCAB, (N,))
    targets[::4] = 1  # padding
    return layer, features, targets


def test_without_smoothing_it_is_torchs(parts: tuple) -> None:
    layer, features, targets = parts
    total, plain = token_loss(layer, features, targets)
    wanted = F.cross_entropy(layer(features), targets, ignore_index=1, reduction="sum")
    torch.testing.assert_close(total, wanted, atol=1e-12, rtol=0)
    torch.testing.assert_close(plain, wanted.detach(), atol=1e-12, rtol=0)


def test_smoothing_spreads_over_all_words_but_padding(parts: tuple) -> None:
    layer, features, targets = parts
    wanted = torch.full((N, VOCAB), 0.3 / (VOCAB - 1), dtype=torch.float64)
    wanted[:, 1] = 0.0
    wanted[torch.arange(N), targets] += 0.7
    wanted[targets == 1] = 0.0
    torch.testing.assert_close(wanted[targets != 1].sum(1), torch.ones(N - 6).double())
    expected = -(wanted * layer(features).log_softmax(1)).sum()
    total, plain = token_loss(layer, features, targets, 0.3)
    assert not plain.requires_grad
    torch.testing.assert_close(total, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(plain, token_loss(layer, features, targets)[1])


def test_a_hand_example() -> None:
    layer = nn.Linear(1, 4).double()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 6.0]).double().log())
    features = torch.zeros(2, 1, dtype=torch.float64)
    total, plain = token_loss(layer, features, torch.tensor([3, 1]), 0.3)
    total = total.detach()
    # Probabilities 1/12, 1/6, 1/4, 1/2; the second word is padding.
    assert float(plain) == pytest.approx(math.log(2), abs=1e-12)
    smoothed = 0.7 * math.log(2) + 0.1 * (math.log(12) + math.log(4) + math.log(2))
    assert total.item() == pytest.approx(smoothed, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("chunk", "block"), [(4, 32), (5, 2), (512, 32), (512, 3)])
def test_the_gradients_made_on_the_way_are_autograds(
    parts: tuple, smoothing: float, chunk: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    monkeypatch.setattr(module, "_BLOCK", block)
    layer, features, targets = parts
    found = []
    for output in (layer, Plain(layer)):
        total, _ = token_loss(output, features, targets, smoothing)
        (total / 7).backward()
        parameters = [features, layer.weight, layer.bias]
        found.append([total.detach(), *(each.grad for each in parameters)])
        for each in parameters:
            each.grad = None
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_gradcheck(parts: tuple) -> None:
    layer, features, targets = parts

    def loss(features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return module._LinearLoss.apply(features, weight, bias, targets, 0.1)[0]

    assert torch.autograd.gradcheck(loss, (features, layer.weight, layer.bias))


def test_bf16_sums_in_float32(parts: tuple) -> None:
    layer, features, targets = parts
    layer, features = layer.float(), features.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = token_loss(layer, features, targets, 0.1)
    total.backward()
    wanted, _ = token_loss(layer, features, targets, 0.1)
    assert total.dtype == torch.float32
    # bf16 keeps 8 bits of each factor.
    torch.testing.assert_close(total, wanted, rtol=2e-2, atol=0)
    assert features.grad is not None
    assert features.grad.dtype == torch.float32


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_words_are_no_loss(smoothing: float) -> None:
    layer, features = nn.Linear(SIZE, VOCAB), torch.zeros(0, SIZE, requires_grad=True)
    total, plain = token_loss(layer, features, torch.zeros(0, dtype=torch.int64), smoothing)
    total.backward()
    assert (total.item(), float(plain)) == (0.0, 0.0)
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("sure", [1.0, 6.0])
def test_bf16_gradients_are_those_of_float32_to_its_digits(smoothing: float, sure: float) -> None:
    torch.manual_seed(0)
    layer, targets = nn.Linear(16, 50), torch.randint(2, 50, (70,))
    targets[::5] = 1
    # Features along their target's weights: "sure" of it, so that its own gradient is near 0.
    found = sure * layer.weight[targets] / layer.weight[targets].square().sum(1, keepdim=True)
    features = (found + 0.1 * torch.randn(70, 16)).detach().bfloat16().float().requires_grad_()
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16())
    learning = [features, layer.weight, layer.bias]
    wanted = torch.autograd.grad(token_loss(layer, features, targets, smoothing)[0], learning)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = token_loss(layer, features, targets, smoothing)[0]
    for one, other in zip(torch.autograd.grad(reduced, learning), wanted, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.02


def test_nothing_is_learned_where_nothing_asks(parts: tuple) -> None:
    layer, features, targets = parts
    with torch.no_grad():
        total, _ = token_loss(layer, features, targets)
    assert not total.requires_grad
