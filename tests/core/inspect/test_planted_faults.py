"""Ten faults, planted in networks that train: each is named with its layer.

The thresholds were set before, on healthy networks alone (``thresholds.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau import Learner, TensorData
from flambeau.inspect import inspect
from flambeau.inspect.watch.verdicts import Verdict

N_STEPS = 25


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    before = torch.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.set_rng_state(before)


def mlp(depth: int = 3, act: type[nn.Module] = nn.ReLU, width: int = 32) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(10, width), act()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), act()]
    return nn.Sequential(*layers, nn.Linear(width, 4))


class ConvNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Embedding, self-attention and a linear layer on the mean over the positions."""

    def __init__(self, scale: float | None = None, n_rows: int = 20) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_rows, 16)
        self.query, self.key, self.value = (nn.Linear(16, 16) for _ in range(3))
        self.head = nn.Linear(16, 4)
        self.positions = nn.Parameter(torch.zeros(12))
        self.scale = scale

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        q, k, v = (
            part(x).unflatten(2, (2, 8)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mask = self.positions.expand(12, 12)
        found = F.scaled_dot_product_attention(q, k, v, mask, scale=self.scale)
        return self.head(found.transpose(1, 2).flatten(2).mean(1))


def rows() -> tuple[Tensor, Tensor]:
    x = torch.randn(64, 10)
    return x, x[:, :4].argmax(1)


def images() -> tuple[Tensor, Tensor]:
    y = torch.randint(4, (32,))
    return torch.randn(32, 1, 8, 8) + y.view(-1, 1, 1, 1).float() - 1.5, y


def tokens() -> tuple[Tensor, Tensor]:
    x = torch.randint(20, (32, 12))
    return x, x[:, 0] % 4


def verdicts(
    model: nn.Module,
    batch: Callable[[], tuple[Tensor, Tensor]] = rows,
    lr: float = 1e-3,
    parameters: Callable[[], Iterator[Any]] | None = None,
    optimizer: type[torch.optim.Optimizer] = torch.optim.Adam,
) -> list[Verdict]:
    opt = optimizer((parameters or model.parameters)(), lr=lr)  # type: ignore[call-arg]
    with inspect(model) as watch:
        for _ in range(N_STEPS):
            x, y = batch()
            F.cross_entropy(model(x), y).backward()
            opt.step()
            opt.zero_grad()
    assert watch.record.notes == []
    return watch.verdicts()


def named(found: list[Verdict]) -> list[tuple[str, str]]:
    return [(each.kind, each.layer) for each in found]


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (mlp, rows),
        (lambda: mlp(act=nn.Tanh), rows),
        (lambda: mlp(act=nn.GELU), rows),
        (ConvNet, images),
        (Attention, tokens),
    ],
)
def test_the_networks_without_a_fault_have_no_verdict(
    model: Callable[[], nn.Module], batch: Callable[[], tuple[Tensor, Tensor]]
) -> None:
    assert list(map(str, verdicts(model(), batch))) == []


def test_dead_relus() -> None:
    model = ConvNet()
    with torch.no_grad():
        model.norm2.bias[:8] = -20.0
    assert named(verdicts(model, images)) == [("dead", "relu after norm2")]
    model = mlp()
    with torch.no_grad():
        model[2].bias.fill_(-20.0)
    found = verdicts(model)
    assert ("dead", "3") in named(found)
    assert "100% of its 32 units never fire since step 0" in str(found[0])


def test_an_exploding_layer() -> None:
    model = ConvNet()
    with torch.no_grad():
        model.conv2.weight.mul_(200.0)
    assert named(verdicts(model, images)) == [("exploding", "conv2")]


def test_vanishing_gradients() -> None:
    found = verdicts(mlp(depth=10, act=nn.Sigmoid))
    assert ("vanishing", "0") in named(found)


def test_a_layer_that_loses_the_gradient_is_named() -> None:
    class Small(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 1e-6 + (x - x * 1e-6).detach()  # only the gradient is small

    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), Small(), nn.Linear(32, 4))
    found = verdicts(model)
    assert named(found) == [("vanishing", "0")]
    assert "most of it is lost in layer 3 (2)" in str(found[0])


@pytest.mark.parametrize("how", ["requires_grad", "optimizer", "detach", "rate"])
def test_a_frozen_layer(how: str) -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    model = mlp(width=64)
    if how == "requires_grad":
        model[2].requires_grad_(False)
    elif how == "detach":
        model.insert(4, Detached())

    def parameters() -> Iterator[Any]:
        others = [*model[0].parameters(), *model[4:].parameters()]
        if how == "optimizer":
            yield from others
        elif how == "rate":
            yield from ({"params": model[2].parameters(), "lr": 0.0}, {"params": others})
        else:
            yield from model.parameters()

    found = named(verdicts(model, parameters=parameters))
    expected = [("frozen", "0"), ("frozen", "2")] if how == "detach" else [("frozen", "2")]
    assert found == expected


def test_saturated_sigmoids() -> None:
    model = mlp(act=nn.Sigmoid)
    with torch.no_grad():
        model[2].weight.mul_(100.0)
    assert ("saturated", "3") in named(verdicts(model))


def test_duplicated_features() -> None:
    def with_equal_columns() -> tuple[Tensor, Tensor]:
        x, y = rows()
        x[:, 7] = x[:, 2]
        return x, y

    found = verdicts(mlp(), with_equal_columns)
    assert named(found) == [("duplicated", "(input)")]
    assert "features 2 and 7 are equal" in str(found[0])
    model = mlp()
    with torch.no_grad():  # both sides: the units stay equal in training
        model[2].weight[5], model[2].bias[5] = model[2].weight[9], model[2].bias[9]
        model[4].weight[:, 5] = model[4].weight[:, 9]
    found = verdicts(model)
    assert named(found) == [("duplicated", "2")]
    assert "units 5 and 9 are equal" in str(found[0])


def test_unused_embedding_rows() -> None:
    for optimizer in (torch.optim.Adam, torch.optim.SGD):
        found = verdicts(Attention(n_rows=400), tokens, optimizer=optimizer)
        assert named(found) == [("unused rows", "embedding")]
        assert "95% of its 400 rows" in str(found[0])


def test_missing_normalisation() -> None:
    def raw() -> tuple[Tensor, Tensor]:
        x, y = rows()
        return 120.0 + 60.0 * x, y

    assert ("input scale", "(input)") in named(verdicts(mlp(), raw))
    # A deep network without norm layers: the initial weights of torch shrink the signal.
    found = verdicts(mlp(depth=14))
    assert any(kind == "lost signal" for kind, _ in named(found)), list(map(str, found))
    with_norm = mlp(depth=14)
    for index in range(2, 28, 2):
        with_norm[index] = nn.Sequential(with_norm[index], nn.BatchNorm1d(32))
    assert named(verdicts(with_norm)) == []


def test_a_learning_rate_that_is_100_times_too_high() -> None:
    # The attention trains best with 0.01, the others well with 0.001.
    nets = ((mlp(), rows, 0.1), (ConvNet(), images, 0.1), (Attention(), tokens, 1.0))
    for model, batch, lr in nets:
        found = verdicts(model, batch, lr=lr)
        assert "large updates" in dict(named(found)), type(model)
        assert "Lower lr about" in found[0].fix
        layers = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
        assert found[0].layer in layers


def test_attention_on_one_position() -> None:
    def different_tokens() -> tuple[Tensor, Tensor]:
        x = torch.rand(32, 20).argsort(1)[:, :12]
        return x, x[:, 0] % 4

    found = verdicts(Attention(scale=1e4), different_tokens)
    assert [layer for _, layer in named(found)] == ["attention in (model)"]
    assert "each query attends to one position only" in str(found[0])
    model = Attention()
    with torch.no_grad():
        model.positions[4] = 50.0
    found = verdicts(model, tokens)
    assert named(found) == [("one position", "attention in (model)")]
    assert "collapsed onto one position: 100% of the weights of every head" in str(found[0])


def test_a_fault_is_named_in_a_learner_too() -> None:
    x, y = rows()
    data = TensorData.from_tensors(x, y, valid=0.25)
    model = mlp()
    model[2].requires_grad_(False)
    learner = Learner(data, model, choices={"batch_size": 16, "probe": "off"}, quiet=True)
    watch = learner.inspect(every=1)
    learner.fit(6)
    assert ("frozen", "2") in named(watch.verdicts())
