"""``OptimizerStep`` against ``optimizer.step()``: to the last bit, whatever changes meanwhile."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from flambeau.torch_internals import torch_step
from flambeau.training.optim.fused_step import OptimizerStep

MAKERS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "adamw": lambda p: AdamW(p, lr=0.1, weight_decay=0.1, fused=True),
    "adam": lambda p: Adam(p, lr=0.1, weight_decay=0.1, fused=True, maximize=True),
    "adam-decoupled": lambda p: Adam(p, lr=0.1, decoupled_weight_decay=True, fused=True),
    "sgd": lambda p: SGD(p, lr=0.1, weight_decay=0.1, fused=True),
    "sgd-momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.2, fused=True),
    "sgd-nesterov": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True, fused=True),
    "groups": lambda p: AdamW(
        [{"params": p[:1], "lr": 0.3}, {"params": p[1:], "weight_decay": 0.0}], fused=True
    ),
    # What the kernel cannot be called for straight away.
    "amsgrad": lambda p: AdamW(p, lr=0.1, amsgrad=True, fused=True),
    "tensor-lr": lambda p: AdamW(p, lr=torch.tensor(0.1), fused=True),
    "not-fused": lambda p: AdamW(p, lr=0.1, fused=False),
    "other-class": lambda p: Adagrad(p, lr=0.1, fused=True),
}
STRAIGHT = ("adamw", "adam", "adam-decoupled", "sgd", "sgd-momentum", "sgd-nesterov", "groups")


class Pair:
    """The same net twice: one steps by ``OptimizerStep``, the other by torch."""

    def __init__(self, name: str = "adamw") -> None:
        torch.manual_seed(0)
        self.ours = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 1))
        self.theirs = copy.deepcopy(self.ours)
        self.optimizers = [MAKERS[name](list(m.parameters())) for m in (self.ours, self.theirs)]
        self.step_of_ours = OptimizerStep(self.optimizers[0])
        self.straight = 0  # steps that torch did not take
        self.count = 0

    def step(self, found_inf: Tensor | None = None, leave_out: int | None = None) -> None:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(self.count))
        self.count += 1
        for model in (self.ours, self.theirs):
            model.zero_grad()
            layers = [layer for n, layer in enumerate(model) if n != leave_out]
            nn.Sequential(*layers)(x).square().mean().backward()
        by_torch = _count_of_torch_steps(self.optimizers[0])
        self.step_of_ours(found_inf)
        self.straight += by_torch() == 0
        if found_inf is None:
            self.optimizers[1].step()
        else:
            torch_step(self.optimizers[1], found_inf)

    def check(self) -> None:
        for mine, other in zip(self.ours.parameters(), self.theirs.parameters(), strict=True):
            assert torch.equal(mine, other)
        states = [o.state_dict()["state"] for o in self.optimizers]
        assert states[0].keys() == states[1].keys()
        for key, entries in states[0].items():
            for name, value in entries.items():
                other = states[1][key][name]
                assert value is other is None or torch.equal(value, other), name


def _count_of_torch_steps(optimizer: Optimizer) -> Callable[[], int]:
    """Groups that torch's own step took since: it alone gathers lists by this method."""
    kind, calls = type(optimizer), []
    before = kind._init_group

    def noted(self: Optimizer, *args: Any) -> Any:
        calls.append(self)
        return before(self, *args)

    kind._init_group = noted

    def read() -> int:
        kind._init_group = before
        return len(calls)

    return read


@pytest.mark.parametrize("name", MAKERS)
def test_the_weights_equal_those_of_torch(name: str) -> None:
    pair = Pair(name)
    for step in range(6):
        for optimizer in pair.optimizers:
            for group in optimizer.param_groups:
                if not isinstance(group["lr"], Tensor):
                    group["lr"] *= 0.9 + 0.05 * step
        pair.step()
    pair.check()
    assert pair.straight == (5 if name in STRAIGHT else 0)


@pytest.mark.parametrize("name", STRAIGHT)
def test_a_step_that_is_not_finite_has_no_effect(name: str) -> None:
    pair = Pair(name)
    for found in (0.0, 0.0, 1.0, 0.0):
        before = [p.detach().clone() for p in pair.ours.parameters()]
        pair.step(found_inf=torch.tensor(found))
        same = all(map(torch.equal, before, pair.ours.parameters()))
        assert same is (found == 1.0)
    pair.check()
    assert pair.straight == 3


def test_parameters_that_gain_and_lose_gradients() -> None:
    pair = Pair("sgd")
    for left_out in (2, 2, None, None, 2, None):
        pair.step(leave_out=left_out)
    pair.check()
    assert pair.straight == 2  # the second of each kind in a row


def test_parameters_that_are_unfrozen_later() -> None:
    pair = Pair()
    for model in (pair.ours, pair.theirs):
        model[0].requires_grad_(False)
    pair.step()
    pair.step()
    for model in (pair.ours, pair.theirs):
        model[0].requires_grad_(True)
    pair.step()
    pair.step()
    pair.check()
    assert pair.straight == 2


def test_a_state_that_is_loaded() -> None:
    pair = Pair()
    pair.step()
    saved = copy.deepcopy(pair.optimizers[0].state_dict())
    pair.step()
    for optimizer in pair.optimizers:
        optimizer.load_state_dict(copy.deepcopy(saved))
    pair.step()
    pair.step()
    pair.check()
    assert pair.straight == 2


def test_a_group_that_is_added_and_settings_that_change() -> None:
    pair = Pair("sgd-momentum")
    pair.step()
    for model, optimizer in zip((pair.ours, pair.theirs), pair.optimizers, strict=True):
        extra = nn.Linear(1, 1)
        with torch.no_grad():
            extra.weight.fill_(0.5)
            extra.bias.zero_()
        model.append(extra)
        optimizer.add_param_group({"params": list(extra.parameters())})
    pair.step()
    pair.step()
    for optimizer in pair.optimizers:
        for group in optimizer.param_groups:
            group["momentum"] = 0.0
    pair.step()
    pair.step()
    pair.check()
    assert pair.straight == 2


def test_hooks_and_wrapped_steps_are_called() -> None:
    pair = Pair()
    pair.step()
    heard: list[str] = []
    hook = pair.optimizers[0].register_step_post_hook(lambda *_: heard.append("hook"))
    pair.step()
    hook.remove()
    pair.step()  # by torch, so that the lists are kept again
    pair.step()
    everywhere = register_optimizer_step_pre_hook(
        lambda optimizer, *_: heard.append("all") if optimizer is pair.optimizers[0] else None
    )
    pair.step()
    everywhere.remove()
    schedulers = [torch.optim.lr_scheduler.ConstantLR(o) for o in pair.optimizers]
    pair.step()
    for scheduler in schedulers:
        scheduler.step()  # warns where the optimizer's own step was not called before
    pair.check()
    assert heard == ["hook", "all"]
    assert pair.straight == 1


def test_a_derived_class_uses_its_own_step() -> None:
    class Noted(AdamW):
        calls = 0

        def step(self, closure: object = None) -> None:
            self.calls += 1
            super().step()

    layer = nn.Linear(2, 1)
    optimizer = Noted(layer.parameters(), fused=True)
    step = OptimizerStep(optimizer)
    for _ in range(3):
        layer(torch.ones(1, 2)).sum().backward()
        step()
    assert optimizer.calls == 3


def test_a_wrapper_without_defaults_uses_its_own_step() -> None:
    class Wrapper(Optimizer):
        """As torch's PostLocalSGDOptimizer: it never calls Optimizer.__init__."""

        def __init__(self, inner: Optimizer) -> None:
            self.inner = inner
            self.param_groups = inner.param_groups
            self.state = inner.state

        def step(self, closure: object = None) -> None:
            self.inner.step()

    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    OptimizerStep(Wrapper(SGD([parameter], lr=0.5)))()
    assert parameter.tolist() == [0.5, 0.5]


def test_torch_makes_differentiable_steps() -> None:
    start = torch.ones(2, requires_grad=True)
    parameter = start * 1.0  # no leaf, so that the step may become a part of its graph
    parameter.retain_grad()
    parameter.grad = 3.0 * start
    OptimizerStep(SGD([parameter], lr=0.5, differentiable=True))()
    parameter.sum().backward()
    assert start.grad is not None
    assert start.grad.tolist() == [-0.5, -0.5]  # 1 - 0.5 * 3: through the step as well
