"""Precision: what autocast does, and the loss scale of fp16 beside the guard."""

import pytest
import torch
from torch import nn

from flambeau.errors import ArgumentError, InputError
from flambeau.training.nonfinite.guard import NonFiniteGuard
from flambeau.training.optim.clip import gradients_of
from flambeau.training.optim.fused_step import OptimizerStep
from flambeau.training.optim.optimizer import make_optimizer
from flambeau.training.optim.precision import Precision
from flambeau.training.state import Position

CPU = torch.device("cpu")


def test_fp32_changes_nothing() -> None:
    precision = Precision("fp32", CPU)
    assert precision.autocast() is precision.autocast()
    with precision.autocast():
        assert not torch.is_autocast_enabled("cpu")
    assert not precision.scales_loss
    assert precision.state_dict() == {}


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_layers_compute_in_half(name: str, dtype: torch.dtype) -> None:
    precision = Precision(name, CPU)
    model = nn.Linear(2, 2)
    with precision.autocast():
        with precision.autocast():  # a step of the user's may nest it
            assert model(torch.ones(1, 2)).dtype is dtype
        assert model(torch.ones(1, 2)).dtype is dtype
    assert model(torch.ones(1, 2)).dtype is torch.float32
    assert model.weight.dtype is torch.float32


def test_fp16_gradients_are_unscaled() -> None:
    precision = Precision("fp16", CPU)
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = make_optimizer("sgd", model, lr=0.1)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    model(x).square().mean().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    optimizer.zero_grad()
    precision.backward(model(x).square().mean())
    scale = precision.state_dict()["scale"]
    torch.testing.assert_close(model.weight.grad, expected[0] * scale)
    precision.unscale([optimizer])
    # Scaling by a power of two is exact.
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_an_overflow_is_skipped_and_halves_the_scale() -> None:
    precision = Precision("fp16", CPU)
    model = nn.Linear(1, 1)
    optimizer = make_optimizer("adamw", model, lr=0.1)
    step = OptimizerStep(optimizer)
    guard = NonFiniteGuard(model, CPU, tolerate_overflow=precision.scales_loss)
    scales, moved = [], []
    for factor in (1.0, 1e36, 1.0):
        guard.record(Position(), [])
        before = model.weight.detach().clone()
        loss = model(torch.ones(1, 1)).sum() * factor  # 1e36 * 2**16 overflows in the backward pass
        precision.backward(loss)
        precision.unscale([optimizer])
        guard.check(loss, gradients_of(model.parameters()))
        guard.step(step)
        precision.update()
        optimizer.zero_grad()
        scales.append(precision.state_dict()["scale"])
        moved.append(not torch.equal(model.weight, before))
        assert guard.read(now=True) is None
    assert scales == [65536.0, 32768.0, 32768.0]
    assert moved == [True, False, True]


def test_an_optimizer_without_gradients_is_not_changed() -> None:
    precision = Precision("fp16", CPU)
    precision.unscale([make_optimizer("sgd", nn.Linear(1, 1), lr=0.1)])
    precision.update()
    assert precision.state_dict()["scale"] == 65536.0


def test_the_scale_is_resumed() -> None:
    first, second = Precision("fp16", CPU), Precision("fp16", CPU)
    model = nn.Linear(1, 1)
    optimizer = make_optimizer("sgd", model, lr=0.1)
    first.backward(model(torch.full((1, 1), float("inf"))).sum())
    first.unscale([optimizer])
    first.update()
    assert first.state_dict()["scale"] == 32768.0
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    Precision("fp32", CPU).load_state_dict({})


def test_unknown_name() -> None:
    with pytest.raises(
        ArgumentError, match=r"Unknown precision 'float16'. Known names: bf16, fp16"
    ):
        Precision("float16", CPU)


def test_unsupported_precision_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError('"addmm" not implemented')

    monkeypatch.setattr(torch.nn.functional, "linear", refuse)
    with pytest.raises(
        InputError, match=r"does not support precision 'fp16' on cpu.*\"addmm\".*Use \"fp32\""
    ):
        Precision("fp16", CPU)
