"""Whatever a block does to model, optimizer and generators: afterwards they are as before."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flambeau.training.run_state.preserve import capture_optimizer, preserve


class Counts(nn.Module):
    """Keeps something besides tensors, a buffer that is not saved, and one that is replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.register_buffer("replaced", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.scratch += x.detach().sum()
        self.replaced = self.replaced + 1
        return x

    def get_extra_state(self) -> Any:
        return {"calls": self.calls}

    def set_extra_state(self, state: Any) -> None:
        self.calls = state["calls"]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), Counts(), nn.Dropout(0.5), nn.Linear(4, 1)
    )
    made[0].weight.requires_grad_(False)
    made[1].eval()
    made(torch.randn(5, 3)).sum().backward()  # leaves gradients
    return made


def picture(model: nn.Module) -> list[Any]:
    """Everything about the model, by value."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [
        [(name, id(value), value.tolist(), value.requires_grad) for name, value in tensors],
        [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        [module.training for module in model.modules()],
        model[2].calls,  # type: ignore[index]
    ]


def draws() -> list[float]:
    return [float(torch.rand(1)), random.random(), float(np.random.rand())]


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.train().requires_grad_(True)
    for _ in range(3):
        model(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    np.random.rand(3)
    random.random()


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_restored(fails: bool) -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    train(net(), torch.optim.SGD(net().parameters(), 0.1))
    before, generators = picture(model), torch.get_rng_state()
    random_before, numpy_before = random.getstate(), np.random.get_state()[1].tolist()
    with (
        pytest.raises(KeyboardInterrupt) if fails else preserve(model, weights=True),
        preserve(model, weights=True),
    ):
        train(model, optimizer)
        assert picture(model) != before
        if fails:
            raise KeyboardInterrupt
    assert picture(model) == before
    assert torch.equal(torch.get_rng_state(), generators)
    assert random.getstate() == random_before
    assert np.random.get_state()[1].tolist() == numpy_before


def seed_all() -> None:
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)


def test_random_draws_continue_unchanged() -> None:
    model = nn.Linear(1, 1)
    seed_all()
    np.random.randn()  # leaves the second number of a pair behind
    expected = draws()
    seed_all()
    np.random.randn()
    with preserve(model, weights=True):
        draws()
        np.random.randn()
    assert draws() == expected


def test_an_optimizer_with_its_state_is_restored() -> None:
    def steps(disturbed: bool) -> list[float]:
        model = net()
        optimizer = torch.optim.AdamW(
            [{"params": model[0].parameters()}, {"params": model[4].parameters(), "lr": 0.3}], 0.1
        )
        train(model, optimizer)
        if disturbed:
            with preserve(model, weights=True) as after:
                after.callback(capture_optimizer(optimizer))
                train(model, optimizer)
                optimizer.param_groups[0]["lr"] = 7.0
                optimizer.param_groups[0]["lr_scale"] = 2.0
                optimizer.param_groups[:] = optimizer.param_groups[:1]
        train(model, optimizer)
        assert [set(group) & {"lr_scale"} for group in optimizer.param_groups] == [set(), set()]
        return torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()

    assert steps(disturbed=True) == steps(disturbed=False)
