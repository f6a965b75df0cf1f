"""Clipping against torch's own."""

import pytest
import torch
from torch import nn

from flambeau.errors import InputError
from flambeau.training.optim.clip import clip_gradients, gradient_norm, gradients_of


def model_with_gradients(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).to(dtype)
    model(torch.randn(4, 5, dtype=dtype)).square().sum().backward()
    return model


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bitwise_equal_to_torch(max_norm: float, dtype: torch.dtype) -> None:
    mine, theirs = model_with_gradients(dtype), model_with_gradients(dtype)
    norm = clip_gradients(gradients_of(mine.parameters()), max_norm)
    expected = nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
    assert torch.equal(norm, expected)
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_the_norm_changes_nothing() -> None:
    model = model_with_gradients()
    before = [p.grad.clone() for p in model.parameters()]
    expected = torch.cat([g.flatten() for g in before]).double().norm()
    assert gradient_norm(gradients_of(model.parameters())).item() == pytest.approx(
        expected.item(), rel=1e-6
    )
    assert all(torch.equal(p.grad, b) for p, b in zip(model.parameters(), before, strict=True))


def test_parameters_without_gradients_are_skipped() -> None:
    model = model_with_gradients()
    model[0].weight.grad = None
    assert len(gradients_of(model.parameters())) == 3
    assert gradient_norm([]).item() == 0.0
    assert clip_gradients([], 1.0).item() == 0.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_norm_shows_what_is_not_finite(value: float) -> None:
    model = model_with_gradients()
    model[2].bias.grad[0] = value
    assert not torch.isfinite(gradient_norm(gradients_of(model.parameters())))


def test_max_norm_must_be_positive() -> None:
    with pytest.raises(InputError, match=r"positive norm, not 0\.0"):
        clip_gradients([], 0.0)
