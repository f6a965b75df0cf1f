"""``model.lr_factors()``: single parameters with a learning rate of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Callback, Learner, Phase, Regression, Schedule, TensorData
from flambeau.errors import InputError
from flambeau.training.optim.groups import parameter_groups
from flambeau.training.optim.optimizer import make_optimizer, no_decay_ids, regroup
from flambeau.training.optim.optimizer_class import ClassFactory
from flambeau.training.optim.own_rate import own_rate
from flambeau.training.options import TrainingOptions

FACTORS = {"scale": 6.0, "stem.bias": 0.1, "head.bias": 0.1}


class Net(nn.Module):
    def __init__(self, factors: Mapping[str, float] = FACTORS) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.scale = nn.Parameter(torch.ones(1, 4))
        self.stem, self.head = nn.Linear(4, 5), nn.Linear(5, 1)
        self._factors = factors

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x * self.scale).relu())

    def layer_groups(self) -> Mapping[str, list[Any]]:
        return {"stem": [self.scale, self.stem], "head": [self.head]}

    def lr_factors(self) -> Mapping[str, float]:
        return self._factors


def rates(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, float]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}


def expected(lr: float, scales: Mapping[str, float] = {}) -> dict[str, float]:
    group_of = {"scale": "stem", "stem.weight": "stem", "stem.bias": "stem"}
    return {
        name: pytest.approx(lr * FACTORS.get(name, 1.0) * scales.get(group_of.get(name, "head"), 1))
        for name in ("scale", "stem.weight", "stem.bias", "head.weight", "head.bias")
    }


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_steps_equal_torchs_with_explicit_groups(name: str) -> None:
    mine, theirs = Net().double(), Net().double()
    groups = [
        {"params": [theirs.scale], "lr": 0.06, "weight_decay": 0.1},
        {"params": [theirs.stem.weight, theirs.head.weight], "lr": 0.01, "weight_decay": 0.1},
        {"params": [theirs.stem.bias, theirs.head.bias], "lr": 0.001, "weight_decay": 0.0},
    ]
    build = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[name]
    optimizers = [
        make_optimizer(name, mine, lr=0.01, weight_decay=0.1),
        build(groups, lr=0.01, foreach=False),
    ]
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for _ in range(5):
        for model, optimizer in zip((mine, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (model(x) - x[:, :1]).square().mean().backward()
            optimizer.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_merged_groups_keep_their_factors() -> None:
    model = Net()
    optimizer = make_optimizer("adamw", model, lr=0.01, weight_decay=0.1)
    regroup(optimizer, parameter_groups(model), {}, no_decay_ids(model))
    # Weights, the scale and the biases; both layers share their groups.
    assert [g["lr_factor"] for g in optimizer.param_groups] == [6.0, 1.0, 0.1]
    assert rates(optimizer, model) == expected(0.01)


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_gradients_ready(self, state: Any) -> None:
        self.seen.append(rates(state.optimizers["main"], state.model))


def data() -> TensorData:
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
    return TensorData.from_tensors(x, x.sum(1), valid=8)


@pytest.mark.parametrize("optimizer", [None, torch.optim.NAdam, torch.optim.Rprop])
def test_factors_multiply_the_schedule_and_the_layer_scale(optimizer: Any) -> None:
    keep = Rates()
    decay = 0.0 if optimizer is torch.optim.Rprop else 0.1
    learner = Learner(
        data(),
        Net(),
        choices={"batch_size": 8, "weight_decay": decay, "probe": "off"},
        training=TrainingOptions(optimizer=optimizer),
        callbacks=[keep],
        quiet=True,
    )
    schedule = Schedule("linear", 0.02, {"start": 1.0, "end": 0.5})
    learner.fit_phases(
        [
            Phase(1, {"lr": schedule}, bn="train"),
            Phase(1, {"lr": schedule}, lr_scales={"stem": 0.25}, bn="train"),
        ]
    )
    assert keep.seen == [
        expected(0.02),
        expected(0.01),
        expected(0.02, {"stem": 0.25}),
        expected(0.01, {"stem": 0.25}),
    ]


class TrainedTask(Regression):
    def __init__(self) -> None:
        super().__init__(["y"])
        self.head = nn.Linear(1, 1)

    def loss(self, outputs: Any, batch: Any) -> Any:
        return super().loss(self.head(outputs), batch)


def test_a_first_group_with_a_factor_does_not_change_other_rates() -> None:
    """The rate of a task's parameters, and of a factory that sets its own, is the plain one."""

    class First(Callback):
        def on_gradients_ready(self, state: Any) -> None:
            wanted = id(state.task.head.weight)
            groups = state.optimizers["main"].param_groups
            self.lr = [g["lr"] for g in groups if wanted in map(id, g["params"])]

    first, task = First(), TrainedTask()
    Learner(
        data(),
        Net(),
        task=task,
        choices={"batch_size": 16, "probe": "off", "bn": "train"},
        callbacks=[first],
        quiet=True,
    ).fit(1, lr=0.02, schedule="constant")
    groups = make_optimizer("adamw", Net(), lr=0.01).param_groups
    assert groups[0]["lr_factor"] == 6.0
    assert first.lr == pytest.approx([0.02])
    values = {"betas": None, "eps": None, "momentum": None, "weight_decay": 0.1}
    found = own_rate(ClassFactory(torch.optim.NAdam, {"lr": 0.5}), Net(), values)
    assert found.lr == pytest.approx(0.5)


def test_a_class_without_weight_decay_gets_the_factors() -> None:
    model = Net()
    made = ClassFactory(torch.optim.Rprop)(model, {"lr": 0.1, "weight_decay": 0.0})["main"]
    assert rates(made, model) == expected(0.1)
    assert not any("weight_decay" in group for group in made.param_groups)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"stem.biass": 0.1}, "names the parameter 'stem.biass'.*Did you mean 'stem.bias'"),
        ({"scale": -1.0}, "has -1.0 for 'scale'; give a finite number ≥ 0"),
        ({"scale": float("inf")}, "has inf for 'scale'"),
    ],
)
def test_wrong_factors_are_refused(factors: Mapping[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_optimizer("sgd", Net(factors), lr=0.1)
