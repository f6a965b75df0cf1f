"""Sparse gradients of embeddings, and float64 as torch's default dtype."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, SparseAdam

from flambeau import EMA, Classification, Learner, TensorData, TrainingOptions
from flambeau.errors import NonFiniteError

DRAWS = torch.Generator().manual_seed(0)
X = torch.randint(0, 10, (48, 3), generator=DRAWS)
Y = (X[:, 0] > 4).long()
DATA = TensorData.from_loaders([(X[i : i + 12], Y[i : i + 12]) for i in range(0, 48, 12)], [(X, Y)])


class Words(nn.Module):
    def __init__(self, *, sparse: bool, bag: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.EmbeddingBag if bag else nn.Embedding
        self.embedding = layer(10, 4, sparse=sparse)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        found = self.embedding(x)
        return self.head(found if found.ndim == 2 else found.mean(1))


def trained(
    model: nn.Module, optimizer: Any = "adamw", task: Any = None, decay: float = 0.0, **options: Any
) -> nn.Module:
    choices = {"device": "cpu", "bn": "train", "probe": "off", "weight_decay": decay}
    if isinstance(optimizer, str):
        choices["optimizer"] = optimizer
    else:
        options["optimizer"] = optimizer
    Learner(
        DATA,
        model,
        task=task or Classification(["a", "b"]),
        choices=choices,
        training=TrainingOptions(doctor=False, **options),
        quiet=True,
    ).fit(2, lr=0.05)
    return model


@pytest.mark.parametrize("bag", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "adagrad", "rmsprop"])
def test_sparse_embeddings_train_as_dense_ones(optimizer: str, bag: bool) -> None:
    sparse, dense = (trained(Words(sparse=s, bag=bag), optimizer) for s in (True, False))
    torch.testing.assert_close(sparse.state_dict(), dense.state_dict())


class Functional(Words):
    """The embedding is called as a function, so no layer says that its gradients are sparse."""

    def __init__(self, *, sparse: bool) -> None:
        super().__init__(sparse=False)
        self.is_sparse = sparse

    def forward(self, x: Tensor) -> Tensor:
        weight = self.embedding.weight
        return self.head(nn.functional.embedding(x, weight, sparse=self.is_sparse).mean(1))


class UnknownWeight(Classification):
    def host_weight(self, batch: Any) -> None:
        return None


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}, {"nonfinite": "off"}])
def test_sparse_gradients_of_a_function_are_found(optimizer: str, options: Any) -> None:
    models = (trained(Functional(sparse=s), optimizer, **options) for s in (True, False))
    sparse, dense = (model.state_dict() for model in models)
    torch.testing.assert_close(sparse, dense)


def test_sparse_gradients_of_a_function_that_is_unfrozen_later_are_found() -> None:
    states = []
    for sparse in (True, False):
        model = Functional(sparse=sparse)
        Learner(
            DATA,
            model,
            task=Classification(["a", "b"]),
            choices={"device": "cpu", "bn": "train", "probe": "off", "optimizer": "sgd"},
            training=TrainingOptions(doctor=False),
            quiet=True,
        ).fine_tune(1, lr=0.05)
        states.append(model.state_dict())
    torch.testing.assert_close(*states)


@pytest.mark.parametrize("kind", [Words, Functional])
def test_sparse_gradients_are_divided_by_a_weight_that_the_loss_returns(kind: Any) -> None:
    task = UnknownWeight(["a", "b"])
    models = (trained(kind(sparse=s), "sgd", task, accumulate=2) for s in (True, False))
    sparse, dense = (model.state_dict() for model in models)
    torch.testing.assert_close(sparse, dense)


@pytest.mark.parametrize(
    "options",
    [{"clip_norm": 0.05}, {"accumulate": 2}, {"nonfinite": "skip", "average": EMA(0.9)}],
)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_sparse_sgd_step_equals_a_dense_one(options: Any, decay: float) -> None:
    def sgd(model: nn.Module, values: Any) -> Any:
        decay = values["weight_decay"]
        return {"main": SGD(model.parameters(), lr=values["lr"], weight_decay=decay)}

    sparse, dense = (trained(Words(sparse=s), sgd, decay=decay, **options) for s in (True, False))
    torch.testing.assert_close(sparse.state_dict(), dense.state_dict())


def test_sparse_adam_gets_sparse_gradients() -> None:
    def lazy(model: Any, values: Any) -> Any:
        return {
            "words": SparseAdam(model.embedding.parameters(), lr=values["lr"]),
            "head": SGD(model.head.parameters(), lr=values["lr"]),
        }

    start = Words(sparse=True).embedding.weight.detach()
    few = Words(sparse=True)
    rows = X % 5
    Learner(
        TensorData.from_loaders([(rows, Y)], [(rows, Y)]),
        few,
        task=Classification(["a", "b"]),
        choices={"device": "cpu", "bn": "train", "probe": "off"},
        training=TrainingOptions(doctor=False, optimizer=lazy, clip_norm=1.0),
        quiet=True,
    ).fit(2, lr=0.05)
    assert torch.equal(few.embedding.weight[5:], start[5:])
    assert not torch.equal(few.embedding.weight[:5], start[:5])


def test_a_sparse_gradient_that_is_not_finite_is_noticed() -> None:
    class Overflow(Words):
        def forward(self, x: Tensor) -> Tensor:
            found = self.embedding(x).mean(1)
            found.register_hook(lambda gradient: gradient / 0)
            return self.head(found)

    model = Overflow(sparse=True)
    before = model.embedding.weight.detach().clone()
    with pytest.raises(NonFiniteError):
        trained(model, lambda m, v: {"main": SGD(m.parameters(), lr=v["lr"])})
    assert torch.equal(model.embedding.weight, before)


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nonfinite": "skip", "average": EMA(0.9), "clip_norm": 0.5},
        {"accumulate": 2, "keep_best": "valid_loss"},
    ],
)
def test_float64_as_the_default_dtype_trains(optimizer: str, options: Any) -> None:
    model = trained(Words(sparse=False), optimizer, **options)
    torch.set_default_dtype(torch.float32)
    same = trained(Words(sparse=False).double(), optimizer, **options)
    assert model.head.weight.dtype == torch.float64
    assert same.head.weight.dtype == torch.float64


@pytest.mark.usefixtures("float64")
def test_float64_as_the_default_dtype_changes_no_flag_of_the_guard() -> None:
    x = torch.full((4, 2), torch.inf)
    data = TensorData.from_loaders([(x, torch.zeros(4, dtype=torch.long))], [(x, Y[:4])])
    one = Learner(
        data,
        nn.Linear(2, 2),
        task=Classification(["a", "b"]),
        choices={"device": "cpu", "probe": "off"},
        training=TrainingOptions(doctor=False),
        quiet=True,
    )
    with pytest.raises(NonFiniteError):
        one.fit(1)
