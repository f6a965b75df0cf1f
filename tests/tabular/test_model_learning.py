"""Loops by hand: the models learn XOR, a checkerboard, two spirals and a linear function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau.training.optim.optimizer import make_optimizer
from flambeau_tabular.models import MODELS, ple_edges
from flambeau_tabular.models.collab import CollabDot, CollabNet

Sample = Callable[[int, int], tuple[Tensor, Tensor]]


def xor(n: int, seed: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return x, ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long()


def checkerboard(n: int, seed: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) * 4 - 2
    return x, (x.floor().sum(1) % 2).long()


def spirals(n: int, seed: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(seed)
    radius = 1.2 * torch.rand(n, generator=draws).sqrt()
    label = torch.randint(0, 2, (n,), generator=draws)
    angle = 10 * radius + math.pi * label
    x = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return x + 0.02 * torch.randn(n, 2, generator=draws), label


def columns(x: Tensor) -> list[Tensor]:
    return [x, torch.zeros(len(x), 0), torch.zeros(len(x), 0, dtype=torch.uint8)]


def train(model: nn.Module, x: Tensor, y: Tensor, steps: int, lr: float) -> None:
    """Full batches with a cosine of the learning rate."""
    optimizer = make_optimizer("adamw", model, lr=lr, options={"betas": (0.9, 0.95)})
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * group["lr_factor"] * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        outputs = model.train()(*columns(x))
        if not isinstance(outputs, Tensor):  # the mean of the members' losses
            members = outputs.members
            outputs, target = members.flatten(0, 1), y.repeat_interleave(members.shape[1])
        else:
            target = y
        F.cross_entropy(outputs, target).backward()
        optimizer.step()


def accuracy(name: str, sample: Sample, *, steps: int = 100, k: int = 0, **inputs: Any) -> float:
    """Train on 600 points and return the share of right classes among 1,000 others."""
    x, y = sample(600, 0)
    torch.manual_seed(0)
    small = {"n_outputs": 2, "kind": "classification", "hidden": [32, 32], "dropout": 0.0}
    options = {"n_numbers": 2, "ple_edges": ple_edges(x.numpy(), 16), **inputs}
    model = MODELS[name](inputs=options, **small, **({"k": k} if k else {}))
    train(model, x, y, steps, lr=0.04 if name == "mlp" else 0.01)
    x, y = sample(1_000, 1)
    with torch.no_grad():
        return float((model.eval()(*columns(x)).argmax(1) == y).float().mean())


@pytest.mark.parametrize("embedding", ["none", "plr", "plr_lite", "pbld", "ple"])
def test_the_mlp_learns_xor(embedding: str) -> None:
    assert accuracy("mlp", xor, number_embedding=embedding, plr_sigma=0.3) > 0.95


def test_tabm_learns_xor() -> None:
    assert accuracy("tabm", xor, k=4) > 0.97


def test_tabm_learns_a_checkerboard() -> None:
    assert accuracy("tabm", checkerboard, k=4) > 0.95


def test_the_mlp_learns_a_checkerboard() -> None:
    assert accuracy("mlp", checkerboard, number_embedding="pbld", plr_sigma=0.5) > 0.95


@pytest.mark.parametrize("embedding", ["plr", "plr_lite", "pbld"])
def test_periodic_embeddings_learn_spirals_that_plain_numbers_do_not(embedding: str) -> None:
    without = accuracy("mlp", spirals, number_embedding="none")
    periodic = accuracy("mlp", spirals, number_embedding=embedding, plr_sigma=0.5)
    assert periodic > 0.98
    assert periodic > without + 0.1


def test_without_hidden_layers_the_mlp_recovers_a_linear_function() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=draws)
    y = x @ torch.tensor([1.0, -2.0, 0.5]) + 0.7 + 0.1 * torch.randn(200, generator=draws)
    model = MODELS["mlp"](
        inputs={"n_numbers": 3, "number_embedding": "none"}, n_outputs=1, hidden=[]
    )
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, tolerance_change=1e-12)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.mse_loss(model(*columns(x))[:, 0], y)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = (model.head.weight * model.scale.weight).detach()[0] / math.sqrt(3)
    design = torch.cat([x, torch.ones(200, 1)], 1).double()
    expected = torch.linalg.lstsq(design, y.double()[:, None]).solution[:, 0].float()
    torch.testing.assert_close(found, expected[:3], rtol=0, atol=1e-3)
    torch.testing.assert_close(model.head.bias.detach()[0], expected[3], rtol=0, atol=1e-3)


# ---------------------------------------------------------------- ratings


def ratings(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ratings from vectors of width 2, a bias of each user and item, and the mean 3."""
    fixed, draws = torch.Generator().manual_seed(9), torch.Generator().manual_seed(seed)
    vectors = torch.randn(40, 2, generator=fixed), torch.randn(30, 2, generator=fixed)
    biases = 0.5 * torch.randn(40, generator=fixed), 0.5 * torch.randn(30, generator=fixed)
    user = torch.randint(0, 40, (n,), generator=draws)
    item = torch.randint(0, 30, (n,), generator=draws)
    score = (vectors[0][user] * vectors[1][item]).sum(1) + biases[0][user] + biases[1][item] + 3
    return user + 2, item + 2, score  # codes 0 and 1 are missing and unknown


@pytest.mark.parametrize("kind", [CollabDot, CollabNet])
def test_ratings_are_learned(kind: Any) -> None:
    """Far better than the mean of all ratings, on pairs that were not in train."""
    torch.manual_seed(0)
    user, item, score = ratings(1_000, 0)
    model = kind(42, 32, 8) if kind is CollabDot else kind(42, 32, hidden=[64], dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=1e-4)
    for _ in range(200):
        optimizer.zero_grad()
        F.mse_loss(model.train()(user, item)[:, 0], score).backward()
        optimizer.step()
    user, item, score = ratings(500, 1)
    with torch.no_grad():
        error = (model.eval()(user, item)[:, 0] - score).square().mean()
    assert float(error) < 0.25 * float(score.var())
