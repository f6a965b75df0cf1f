"""The token loss against torch's cross-entropy and against its own plain implementation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from flambeau_text import token_loss as module
from flambeau_text.token_loss import token_loss

PADDING = 1
N, SIZE, VOCAB = 23, 5, 7


class Plain(nn.Module):
    """The same layer, but not an ``nn.Linear`` for the loss."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(features)


def loss_of(
    layer: nn.Module, features: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss as translation calls it."""
    mask = targets != PADDING
    return token_loss(layer, features, targets, mask, smoothing=smoothing, excluded=PADDING)


@pytest.fixture
def parts() -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(SIZE, VOCAB).double()
    features = torch.randn(N, SIZE, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(2, VOCAB, (N,))
    targets[::4] = 1  # padding
    return layer, features, targets


def test_without_smoothing_it_equals_torchs(parts: tuple) -> None:
    layer, features, targets = parts
    total, plain = loss_of(layer, features, targets)
    wanted = F.cross_entropy(layer(features), targets, ignore_index=1, reduction="sum")
    torch.testing.assert_close(total, wanted, atol=1e-12, rtol=0)
    torch.testing.assert_close(plain, wanted.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_other_output_layers_compute_their_own_logits(parts: tuple, smoothing: float) -> None:
    class Scaled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2.0 * super().forward(input)

    _, features, targets = parts
    without_bias = nn.Linear(SIZE, VOCAB, bias=False).double()
    for layer in (Scaled(SIZE, VOCAB).double(), without_bias):
        total, plain = loss_of(layer, features, targets, smoothing)
        wanted = F.cross_entropy(layer(features), targets, ignore_index=1, reduction="sum")
        torch.testing.assert_close(plain, wanted.detach(), atol=1e-12, rtol=0)
        found, _ = loss_of(Plain(layer), features, targets, smoothing)
        torch.testing.assert_close(total, found, atol=1e-12, rtol=0)


def test_smoothing_spreads_over_all_tokens_but_padding(parts: tuple) -> None:
    layer, features, targets = parts
    wanted = torch.full((N, VOCAB), 0.3 / (VOCAB - 1), dtype=torch.float64)
    wanted[:, 1] = 0.0
    wanted[torch.arange(N), targets] += 0.7
    wanted[targets == 1] = 0.0
    torch.testing.assert_close(wanted[targets != 1].sum(1), torch.ones(N - 6).double())
    expected = -(wanted * layer(features).log_softmax(1)).sum()
    total, plain = loss_of(layer, features, targets, 0.3)
    assert not plain.requires_grad
    torch.testing.assert_close(total, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(plain, loss_of(layer, features, targets)[1])


def test_an_example_computed_by_hand() -> None:
    layer = nn.Linear(1, 4).double()
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, 2.0, 3.0, 6.0]).double().log())
    features = torch.zeros(2, 1, dtype=torch.float64)
    total, plain = loss_of(layer, features, torch.tensor([3, 1]), 0.3)
    total = total.detach()
    # Probabilities 1/12, 1/6, 1/4, 1/2; the second token is padding.
    assert float(plain) == pytest.approx(math.log(2), abs=1e-12)
    smoothed = 0.7 * math.log(2) + 0.1 * (math.log(12) + math.log(4) + math.log(2))
    assert total.item() == pytest.approx(smoothed, abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("chunk", "block"), [(4, 32), (5, 2), (512, 32), (512, 3)])
def test_the_chunked_gradients_equal_autograds(
    parts: tuple, smoothing: float, chunk: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    monkeypatch.setattr(module, "_BLOCK", block)
    layer, features, targets = parts
    found = []
    for output in (layer, Plain(layer)):
        total, _ = loss_of(output, features, targets, smoothing)
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
        mask = targets != PADDING
        return module._LinearLoss.apply(features, weight, bias, targets, mask, 0.1, PADDING)[0]

    assert torch.autograd.gradcheck(loss, (features, layer.weight, layer.bias))


def test_bf16_is_summed_in_float32(parts: tuple) -> None:
    layer, features, targets = parts
    layer, features = layer.float(), features.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = loss_of(layer, features, targets, 0.1)
    total.backward()
    wanted, _ = loss_of(layer, features, targets, 0.1)
    assert total.dtype == torch.float32
    # bf16 keeps 8 bits of each factor.
    torch.testing.assert_close(total, wanted, rtol=2e-2, atol=0)
    assert features.grad is not None
    assert features.grad.dtype == torch.float32


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_tokens_give_a_loss_of_0(smoothing: float) -> None:
    layer, features = nn.Linear(SIZE, VOCAB), torch.zeros(0, SIZE, requires_grad=True)
    total, plain = loss_of(layer, features, torch.zeros(0, dtype=torch.int64), smoothing)
    total.backward()
    assert (total.item(), float(plain)) == (0.0, 0.0)
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_bf16_gradients_equal_float32_within_precision(smoothing: float, scale: float) -> None:
    torch.manual_seed(0)
    layer, targets = nn.Linear(16, 50), torch.randint(2, 50, (70,))
    targets[::5] = 1
    # Features along their target's weights make it probable, so that its gradient is near 0.
    found = scale * layer.weight[targets] / layer.weight[targets].square().sum(1, keepdim=True)
    features = (found + 0.1 * torch.randn(70, 16)).detach().bfloat16().float().requires_grad_()
    with torch.no_grad():
        layer.weight.copy_(layer.weight.bfloat16())
    learning = [features, layer.weight, layer.bias]
    wanted = torch.autograd.grad(loss_of(layer, features, targets, smoothing)[0], learning)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = loss_of(layer, features, targets, smoothing)[0]
    for one, other in zip(torch.autograd.grad(reduced, learning), wanted, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.02


def test_an_evaluation_computes_no_gradients(parts: tuple) -> None:
    """Parameters require gradients in an evaluation, too."""
    layer, features, targets = parts

    class Products(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
            return function(*args, **(kwargs or {}))

    counts = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled), Products() as products:
            loss_of(layer, features, targets)
        counts.append(products.count)
    assert counts == [3, 1]


def test_without_grad_mode_nothing_requires_grad(parts: tuple) -> None:
    layer, features, targets = parts
    with torch.no_grad():
        total, _ = loss_of(layer, features, targets)
    assert not total.requires_grad


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("linear", [True, False])
def test_masked_targets_equal_torchs_ignored_ones(
    parts: tuple, smoothing: float, linear: bool
) -> None:
    layer, features, targets = parts
    mask = torch.arange(N) % 3 != 0
    marked = targets.masked_fill(~mask, -100)
    wanted = F.cross_entropy(layer(features), marked, reduction="sum", label_smoothing=smoothing)
    learning = [features, layer.weight, layer.bias]
    gradients = torch.autograd.grad(wanted, learning)
    output = layer if linear else Plain(layer)
    for given in (targets, marked):
        total, _ = token_loss(output, features, given, mask, smoothing=smoothing)
        torch.testing.assert_close(total, wanted, atol=1e-12, rtol=0)
        for one, other in zip(torch.autograd.grad(total, learning), gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("linear", [True, False])
def test_an_end_token_that_is_also_the_padding_counts(parts: tuple, linear: bool) -> None:
    layer, features, _ = parts
    output = layer if linear else Plain(layer)
    ends = torch.full((N,), PADDING)
    total, plain = token_loss(output, features, ends, torch.ones(N, dtype=torch.bool))
    wanted = F.cross_entropy(layer(features), ends, reduction="sum")
    assert float(wanted.detach()) > 1.0
    torch.testing.assert_close(total, wanted, atol=1e-12, rtol=0)
    torch.testing.assert_close(plain, wanted.detach(), atol=1e-12, rtol=0)
