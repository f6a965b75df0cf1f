"""No combination uses batch statistics in training without updating those of evaluation.

The test covers every policy, way of freezing and recipe, on an untrained and on a trained network.
In each step each norm layer either uses its stored statistics and keeps them, or uses those of the
batch and updates them.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import warnings
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from flambeau import Callback, Data, Learner, Phase, Schedule, TensorData
from flambeau.phases import BATCH_NORM_POLICIES
from flambeau.training.freeze import has_running_statistics


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, momentum=None))
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.head(self.body(self.stem(x))))


class StatisticsRecorder(Callback):
    """Records per step whether a norm layer used its stored statistics and whether it kept them."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = {n: m for n, m in model.named_modules() if has_running_statistics(m)}
        self.used_stored: dict[str, bool] = {}
        self.before: dict[str, Tensor] = {}
        self.found: list[tuple[str, bool, bool]] = []
        self.in_step = False
        for name, module in self.layers.items():
            module.register_forward_pre_hook(self._hook_before(name))
            module.register_forward_hook(self._hook(name))

    def _hook_before(self, name: str) -> Callable[..., None]:
        def hook(module: nn.BatchNorm1d, inputs: tuple[Tensor, ...]) -> None:
            if self.in_step:
                self.before[name] = module.running_mean.clone()
                self.stored = nn.functional.batch_norm(
                    inputs[0].detach(),
                    module.running_mean.clone(),
                    module.running_var.clone(),
                    module.weight,
                    module.bias,
                    eps=module.eps,
                )

        return hook

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if self.in_step:
                self.used_stored[name] = torch.allclose(output, self.stored, atol=1e-5)

        return hook

    def on_step_start(self, state) -> None:
        self.in_step = True

    def on_step_end(self, state) -> None:
        self.in_step = False
        for name, module in self.layers.items():
            kept = torch.equal(module.running_mean, self.before[name])
            self.found.append((name, self.used_stored[name], kept))


@cache
def data() -> Data:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(30, 6, generator=draws) * 3 + 2
    return TensorData.from_tensors(x, (x[:, 0] > 2).long(), valid=0.2)


@cache
def trained() -> Net:
    torch.manual_seed(0)
    net = Net().train()
    for _ in range(20):
        net(torch.randn(16, 6))
    return net


def gradual_phases() -> list[Phase]:
    """Return phases that unfreeze from the head, each with the learner's policy."""
    names, lr = ("stem", "body", "head", "last"), {"lr": Schedule("constant", 1e-3)}
    return [Phase(1, lr, trainable=names[first:]) for first in (3, 1, 0)]


def freeze_with_requires_grad(learner: Learner) -> None:
    for part in (learner.model.stem, learner.model.body):
        part.requires_grad_(False)


FREEZING: dict[str, Callable[[Learner], object]] = {
    "nothing": lambda learner: None,
    "freeze": Learner.freeze,
    "freeze_to(1)": lambda learner: learner.freeze_to(1),
    "freeze, unfreeze": lambda learner: (learner.freeze(), learner.unfreeze()),
    "requires_grad": freeze_with_requires_grad,
}
ARGUMENTS = {"epochs": 1, "cycles": 1, "lr": 1e-3, "phases": gradual_phases(), "minutes": 0.002}


def recipes() -> list[str]:
    """Return the names of all training methods of the Learner.

    ``fit_folds`` trains copies of the module with ``fit``, whose layers the hooks do not follow.
    """
    return [
        name
        for name, verb in inspect.getmembers(Learner)
        if name != "fit_folds"
        and name.startswith(("fit", "fine_tune", "gradual"))
        and inspect.isfunction(verb)
    ]


def train(learner: Learner, recipe: str) -> None:
    verb = getattr(learner, recipe)
    parameters = inspect.signature(verb).parameters
    verb(**{name: value for name, value in ARGUMENTS.items() if name in parameters})


@pytest.mark.parametrize("recipe", recipes())
@pytest.mark.parametrize("bn", BATCH_NORM_POLICIES)
def test_no_combination_has_the_mismatch(bn: str, recipe: str) -> None:
    for start, (how, freeze) in itertools.product((Net(), trained()), FREEZING.items()):
        model = copy.deepcopy(start)
        recorder = StatisticsRecorder(model)
        choices = {"batch_size": 6, "bn": bn, "lr": 1e-3}
        learner = Learner(data(), model, choices=choices, callbacks=[recorder], quiet=True)
        freeze(learner)
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=r"\[train-eval-gap\]")
            train(learner, recipe)
        assert recorder.found
        for name, used_stored, kept in recorder.found:
            assert used_stored == kept, (how, name)


def test_a_mismatch_is_detected() -> None:
    """With momentum 0 torch's layer uses batch statistics and never updates its own."""
    model = copy.deepcopy(trained())
    model.stem[1].momentum = 0.0
    recorder = StatisticsRecorder(model)
    choices = {"batch_size": 6, "bn": "train"}
    learner = Learner(data(), model, choices=choices, callbacks=[recorder], quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner.fit(1, lr=1e-3)
    assert {name for name, used_stored, kept in recorder.found if used_stored != kept} == {"stem.1"}
