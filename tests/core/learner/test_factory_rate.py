"""The learning rate of an optimizer factory is the one that plan and history show."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from flambeau import Callback, Learner, Phase, Schedule, TensorData, TrainingOptions
from flambeau.errors import ArgumentError
from flambeau.training import TrainState, make_optimizer

X = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))


def learner(factory: Any, *callbacks: Callback, **choices: Any) -> Learner:
    torch.manual_seed(0)
    return Learner(
        TensorData.from_tensors(X, X.sum(1), valid=8),
        nn.Linear(3, 1),
        choices={"batch_size": 24, "device": "cpu", "bn": "train", "probe": "off", **choices},
        training=TrainingOptions(optimizer=factory, doctor=False),
        quiet=True,
        callbacks=callbacks,
    )


class Gradients(Callback):
    """Records weights and gradients before the last update."""

    def on_gradients_ready(self, state: TrainState) -> None:
        weight: Any = state.model.weight
        self.weight, self.gradient = weight.detach().clone(), weight.grad.clone()

    def moved(self, lr: float) -> Tensor:
        """The weights after a step of SGD with the rate ``lr``."""
        return self.weight - lr * self.gradient


def fixed(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
    return {"main": SGD(model.parameters(), 0.05)}


def fixed_by_make_optimizer(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
    return {"main": make_optimizer("sgd", model, lr=0.05)}


@pytest.mark.parametrize("factory", [fixed, fixed_by_make_optimizer])
def test_a_rate_set_in_the_factory_is_the_plans(factory: Any) -> None:
    seen = Gradients()
    one = learner(factory, seen)
    one.fit(1, schedule="constant")
    assert one.plan["lr"].value == one.history.rows[-1]["lr"] == 0.05
    assert one.plan["lr"].source == "user"
    assert "sets the rate 0.05 for 'main'" in one.plan["lr"].reason
    torch.testing.assert_close(one.model.weight.detach(), seen.moved(0.05))


@pytest.mark.parametrize(
    "how",
    [
        {"lr": 0.001},
        {"schedules": {"lr": Schedule("constant", 0.001)}},
    ],
)
def test_another_rate_beside_that_of_the_factory_is_refused(how: Any) -> None:
    with pytest.raises(ArgumentError, match=r'0\.001, but the optimizer factory .*values\["lr"\]'):
        learner(fixed).fit(1, **how)


def test_phases_with_another_rate_than_the_factory_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"peak 0\.001, but the optimizer factory"):
        learner(fixed).fit_phases([Phase(1, {"lr": Schedule("constant", 0.001)})])


def test_recipes_start_from_the_rate_of_the_factory() -> None:
    one = learner(fixed)
    one.fit_sgdr(2)
    one.fit(1)
    one.fit_one_cycle(1)
    assert one.plan["lr"].value == 0.05


def test_a_factory_that_reads_the_plans_rate_gets_it() -> None:
    seen = Gradients()
    one = learner(lambda m, v: {"main": SGD(m.parameters(), lr=v["lr"])}, seen)
    one.fit(1, lr=0.02, schedule="constant")
    assert one.plan["lr"].value == one.history.rows[-1]["lr"] == 0.02
    torch.testing.assert_close(one.model.weight.detach(), seen.moved(0.02))


def test_lr_find_measures_the_rate_that_the_optimizer_uses() -> None:
    rates: list[float] = []

    class Watched(SGD):
        def step(self, closure: Any = None) -> None:
            rates.append(self.param_groups[0]["lr"])
            super().step(closure)

    found = learner(lambda m, _: {"main": Watched(m.parameters(), 0.5)}).lr_find(max_steps=60)
    swept = found.sweep.rates
    assert rates[: len(found.sweep.losses)] == pytest.approx(swept[: len(found.sweep.losses)])
    assert min(swept) < 0.5 < max(swept)


def test_an_optimizer_that_is_returned_twice_keeps_its_rate() -> None:
    made: list[Optimizer] = []

    def once(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        if not made:
            made.append(SGD(model.parameters(), 0.05))
        return {"main": made[0]}

    seen = Gradients()
    one = learner(once, seen)
    one.fit(1)
    assert made[0].param_groups[0]["lr"] == 0.05
    one.fit(1, schedule="constant")
    torch.testing.assert_close(one.model.weight.detach(), seen.moved(0.05))
    made[0].param_groups[0]["lr"] = 0.01
    one.fit(1)
    assert one.plan["lr"].value == 0.01


def test_the_plan_names_a_custom_optimizer() -> None:
    one = learner(fixed)
    assert one.plan["optimizer"].value == "custom"
    assert "TrainingOptions(optimizer=fixed)" in one.plan["optimizer"].reason


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("given", "name", "options"),
    [
        (torch.optim.Adam, "adam", {}),
        (torch.optim.NAdam, "NAdam", {}),
        (partial(SGD, momentum=0.9, nesterov=True), "sgd", {"momentum": 0.9, "nesterov": True}),
    ],
)
def test_a_class_is_built_from_the_plan(given: Any, name: str, options: Any, decay: float) -> None:
    optimizers: list[Optimizer] = []

    class Seen(Callback):
        def on_step_end(self, state: TrainState) -> None:
            optimizers[:] = state.optimizers.values()

    one = learner(given, Seen(), weight_decay=decay)
    start = {key: value.clone() for key, value in one.model.state_dict().items()}
    one.fit(2, lr=0.02, schedule="constant")
    assert one.plan["optimizer"].value == name
    twin = learner(
        lambda m, v: {
            "main": type(optimizers[0])(
                [{"params": m.weight, "weight_decay": decay}, {"params": m.bias}],
                lr=v["lr"],
                weight_decay=0.0,
                **options,
            )
        }
    )
    twin.model.load_state_dict(start)
    twin.fit(2, lr=0.02, schedule="constant")
    torch.testing.assert_close(one.model.state_dict(), twin.model.state_dict())


def test_a_class_without_weight_decay_refuses_it() -> None:
    with pytest.raises(ArgumentError, match=r"weight_decay is 0\.1, but Rprop has no weight decay"):
        learner(torch.optim.Rprop, weight_decay=0.1).fit(1)


def test_a_partial_with_its_own_rate_sets_the_plans() -> None:
    one = learner(partial(SGD, lr=0.03))
    one.fit(1)
    assert one.plan["lr"].value == 0.03


def test_an_optimizer_in_choices_and_another_class_are_refused() -> None:
    with pytest.raises(ArgumentError, match="'adamw' in choices and 'sgd' in TrainingOptions"):
        learner(SGD, optimizer="adamw")


def test_an_optimizer_in_choices_that_the_factory_does_not_read_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"optimizer is 'adamw' in choices, but .* not read it"):
        learner(lambda m, v: {"main": SGD(m.parameters(), v["lr"])}, optimizer="adamw").fit(1)
    with pytest.raises(ArgumentError, match="optimizer is 'adam' in choices"):
        learner(lambda m, v: {"main": AdamW(m.parameters(), v["lr"])}, optimizer="adam").fit(1)
    # The name of what it makes, or a name that only describes it.
    for name in ("sgd", "mine"):
        learner(lambda m, v: {"main": SGD(m.parameters(), v["lr"])}, optimizer=name).fit(1)

    def reads(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        kind = {"sgd": SGD}[values["optimizer"]]
        return {"main": kind(model.parameters(), values["lr"])}

    learner(reads, optimizer="sgd").fit(1)
