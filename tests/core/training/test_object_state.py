"""The state of losses, tasks, controllers, transforms and train steps survives an interruption."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flambeau import Batch, Callback, Classification, FlambeauWarning, Learner, TensorData
from flambeau import TrainingOptions as Options
from flambeau.errors import ResumeError
from flambeau.training.run_state.object_state import ObjectStates

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
CALLS = 0


class Interrupt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.step:
            raise KeyboardInterrupt


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def make(build: Callable[[], dict[str, Any]], *callbacks: Callback, **settings: Any) -> Learner:
    parts = build()
    return Learner(
        TensorData.from_tensors(X, Y, valid=20),
        parts.pop("model", None) or net(),
        task=parts.pop("task", None),
        choices={"batch_size": 20, "probe": settings.pop("probe", "off"), "precision": "fp32"},
        training=Options(doctor=settings.pop("doctor", False), **parts),
        callbacks=callbacks,
        quiet=True,
        **settings,
    )


def trained(learner: Learner) -> list[Tensor]:
    return [value.clone() for value in learner.model.state_dict().values()]


class LossTask(Classification):
    """Cross entropy by a user-defined function."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(["0", "1"])
        self.function = function

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        return self.function(outputs, batch.target), float(len(batch))


class Running(nn.Module):
    """A loss with a buffer, a buffer that is not persistent, and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("steps", torch.zeros(()), persistent=False)
        self.calls = 0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.mean.mul_(0.9).add_(outputs.detach().mean(0))
            self.steps.add_(1)
            self.calls += 1
        shifted = outputs - self.mean - 0.1 * self.steps
        return cross_entropy(shifted, targets, reduction="sum") / (1 + self.calls)


class Plain:
    """The same kind of state in an object that is no module."""

    def __init__(self) -> None:
        self.losses: deque[float] = deque(maxlen=3)
        self.counts = {"steps": torch.zeros(()), "names": {"a"}}
        self.scale = np.ones(1)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = cross_entropy(outputs, targets, reduction="sum")
        if torch.is_grad_enabled():
            self.losses.append(float(loss.detach()))
            self.counts["steps"] += 1
            self.counts["names"].add(str(len(self.counts["names"])))
            self.scale *= 0.9
        factor = sum(self.losses) + self.counts["steps"] + len(self.counts["names"])
        return loss * float(self.scale[0]) / (1 + factor)


class Teacher(Classification):
    """A teacher in eval mode, without gradients, that follows its own rule."""

    def __init__(self) -> None:
        super().__init__(["0", "1"])
        self.teacher = net().eval().requires_grad_(False)

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Any]:
        total, weight = super().loss(outputs, batch)
        total = total + (outputs - self.teacher(batch.input)).square().sum()
        if torch.is_grad_enabled():
            for parameter in self.teacher.parameters():
                parameter.data.mul_(0.9)
        return total, weight


class Decay:
    """A controller with a counter."""

    def __init__(self) -> None:
        self.epochs = 0

    def update(self, history: Any, progress: float) -> dict[str, float]:
        self.epochs += 1
        return {"lr": 0.1 / (1 + self.epochs)}


class Protocol(Decay):
    """A controller with ``state_dict`` and ``load_state_dict``."""

    __slots__ = ()

    def state_dict(self) -> dict[str, int]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.epochs = state["epochs"]


class Augment:
    """A transform with three random generators and a counter."""

    def __init__(self) -> None:
        self.calls = 0
        self.draws = torch.Generator().manual_seed(1)
        self.numpy = np.random.default_rng(0)
        self.python = random.Random(0)

    def __call__(self, batch: Batch, seed: int) -> Batch:
        self.calls += 1
        factor = torch.rand((), generator=self.draws) + self.numpy.random() + self.python.random()
        return replace(batch, inputs={"input": batch.input * (factor + 0.1 * self.calls)})


def counting_transform() -> Callable[[Batch, int], Batch]:
    calls = 0

    def transform(batch: Batch, seed: int) -> Batch:
        nonlocal calls
        calls += 1
        return replace(batch, inputs={"input": batch.input * (1 + 0.1 * calls)})

    return transform


def one_step(model: nn.Module, batches: Any, task: Any, step: Any, factor: float) -> Tensor:
    [batch] = batches
    total, weight = task.loss(task.forward(model, batch, step.context), batch)
    loss = total / weight * factor
    step.backward(loss)
    step.update(loss)
    return loss


class Scaled:
    """A train step with a scaler of torch and a tensor, used as a method."""

    def __init__(self) -> None:
        self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        self.factor = torch.ones(())

    def step(self, model: nn.Module, micro_batches: Any, task: Any, step: Any) -> Tensor:
        self.scaler.scale(torch.ones(()))
        factor = self.scaler.get_scale()
        self.factor *= 0.9
        loss = one_step(model, micro_batches, task, step, factor * float(self.factor))
        self.scaler.update(factor * 1.5)
        return loss


def mean_teacher() -> Callable[..., Tensor]:
    teacher = net().requires_grad_(False)

    def train_step(model: nn.Module, micro_batches: Any, task: Any, step: Any) -> Tensor:
        factor = 1 + float(teacher(micro_batches[0].input).abs().mean())
        loss = one_step(model, micro_batches, task, step, factor)
        for slow, fast in zip(teacher.parameters(), model.parameters(), strict=True):
            slow.data.lerp_(fast.detach(), 0.1)
        return loss

    return train_step


def step_with_global(model: nn.Module, micro_batches: Any, task: Any, step: Any) -> Tensor:
    global CALLS  # noqa: PLW0603 what is tested
    CALLS += 1
    return one_step(model, micro_batches, task, step, 1 / CALLS)


def with_global() -> dict[str, Any]:
    global CALLS  # noqa: PLW0603 what is tested
    CALLS = 0
    return {"train_step": step_with_global}


class Counter:
    def __init__(self) -> None:
        self.calls = 0


class Attributes(nn.Module):
    """A model with a list, an array and an object of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 2)
        self.means: list[float] = []
        self.scale = np.ones(2)
        self.counter = Counter()

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            self.means.append(float(input.mean()))
            self.scale *= 0.9
            self.counter.calls += 1
        factor = 1 + 0.1 * len(self.means) + 0.1 * self.counter.calls
        return self.layer(input) * factor * float(self.scale[0])


class Slower(torch.optim.SGD):
    """An optimizer that divides the gradients by the number of its steps."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.steps = 0
        self.own = [group["params"][0] for group in self.param_groups]  # not copies

    def step(self, closure: Any = None) -> Any:
        self.steps += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.div_(self.steps)
        return super().step(closure)


def slower(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"main": Slower(model.parameters(), lr=values["lr"])}


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "loss module": lambda: {"task": LossTask(Running())},
    "loss of a task of core": lambda: {
        "task": Classification(["0", "1"], loss=PerSample())  # type: ignore[arg-type]
    },
    "loss object": lambda: {"task": LossTask(Plain())},
    "teacher": lambda: {"task": Teacher()},
    "controller": lambda: {"controllers": (Decay(),)},
    "protocol": lambda: {"controllers": (Protocol(),)},
    "transform": lambda: {"transforms": (Augment(),)},
    "variable of a function": lambda: {"transforms": (counting_transform(),)},
    "method": lambda: {"train_step": Scaled().step},
    "module of a function": lambda: {"train_step": mean_teacher()},
    "global variable": with_global,
    "attributes of the model": lambda: {"model": Attributes()},
    "optimizer": lambda: {"optimizer": slower},
}


class PerSample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("factor", torch.ones(()))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.factor.mul_(0.9)
            self.calls += 1
        return cross_entropy(outputs, targets, reduction="none") * self.factor / (1 + self.calls)


@pytest.mark.parametrize("build", CASES.values(), ids=CASES.keys())
def test_a_resumed_run_continues_the_state(
    build: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    whole = make(build)
    whole.fit(4, lr=0.1)
    interrupted = make(build, Interrupt(5), folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(4, lr=0.1)
    resumed = make(build)
    resumed.resume(tmp_path)
    assert all(map(torch.equal, trained(whole), trained(resumed)))
    columns = ("train_loss", "valid_loss", "lr")
    assert [[row[each] for each in columns] for row in whole.history.rows] == [
        [row[each] for each in columns] for row in resumed.history.rows
    ]


@pytest.mark.parametrize("name", ["loss module", "loss object", "attributes of the model"])
def test_checks_before_a_run_leave_the_state(name: str) -> None:
    plain, checked = make(CASES[name]), make(CASES[name], doctor=True, probe="auto")
    checked.doctor()
    for learner in (plain, checked):
        learner.fit(2, lr=0.1)
    assert all(map(torch.equal, trained(plain), trained(checked)))


@pytest.mark.parametrize("name", ["loss module", "transform", "module of a function"])
def test_lr_find_leaves_the_state(name: str) -> None:
    plain, searched = make(CASES[name]), make(CASES[name])
    searched.lr_find(max_steps=120)
    for learner in (plain, searched):
        learner.fit(2, lr=0.1)
    assert all(map(torch.equal, trained(plain), trained(searched)))


def test_an_iterator_is_named_before_the_run(tmp_path: Path) -> None:
    def build() -> dict[str, Any]:
        factors = itertools.cycle([1.0, 2.0])

        def transform(batch: Batch, seed: int) -> Batch:
            return replace(batch, inputs={"input": batch.input * next(factors)})

        return {"transforms": (transform,)}

    learner = make(build, Interrupt(3), folder=tmp_path)
    reason = r"transforms\[0\].factors is a cycle"
    with (
        pytest.warns(FlambeauWarning, match=rf"not-resumable\].*{reason}"),
        pytest.raises(KeyboardInterrupt),
    ):
        learner.fit(4, lr=0.1)
    with pytest.raises(ResumeError, match=reason):
        make(build).resume(tmp_path)


def test_state_that_is_created_in_the_first_step_is_named(tmp_path: Path) -> None:
    class Late:
        teacher: Any = None

        def __call__(self, batch: Batch, seed: int) -> Batch:
            self.teacher = self.teacher or net()
            return batch

    def build() -> dict[str, Any]:
        return {"transforms": (Late(),)}

    with pytest.raises(KeyboardInterrupt):
        make(build, Interrupt(3), folder=tmp_path).fit(4, lr=0.1)
    with pytest.raises(ResumeError, match=r"transforms\[0\].teacher.*in __init__"):
        make(build).resume(tmp_path)


def test_a_step_that_ends_an_epoch_may_be_the_last_before_resuming(tmp_path: Path) -> None:
    """A resumed epoch without remaining steps is no epoch without an update."""

    def build() -> dict[str, Any]:
        return {"train_step": mean_teacher()}

    with pytest.raises(KeyboardInterrupt):
        make(build, Interrupt(4), folder=tmp_path).fit(4, lr=0.1)  # two steps an epoch
    resumed = make(build)
    resumed.resume(tmp_path)
    assert len(resumed.history.rows) == 4


def test_a_task_that_logs_is_resumed_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    class Logging(LossTask):
        def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
            self.log(batch, mean=outputs.detach().mean())
            return super().loss(outputs, batch)

    def build() -> dict[str, Any]:
        return {"task": Logging(Running())}

    whole = make(build)
    whole.fit(4, lr=0.1)
    with pytest.raises(KeyboardInterrupt):
        make(build, Interrupt(5), folder=tmp_path).fit(4, lr=0.1)
    resumed = make(build)
    resumed.resume(tmp_path)
    assert all(map(torch.equal, trained(whole), trained(resumed)))
    assert whole.history.column("train_mean") == resumed.history.column("train_mean")


def test_a_long_list_of_numbers_is_saved_as_an_array(tmp_path: Path) -> None:
    class Recorder(LossTask):
        def __init__(self) -> None:
            super().__init__(cross_entropy_sum)
            self.losses = [0.1] * 1_500
            self.counts = [*range(1_500)]

        def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
            total, weight = super().loss(outputs, batch)
            self.losses.append(float(total.detach()))
            self.counts.append(len(self.counts))
            return total, weight

    whole, first, again = Recorder(), Recorder(), Recorder()
    make(lambda: {"task": whole}).fit(3)
    with pytest.raises(KeyboardInterrupt):
        make(lambda: {"task": first}, Interrupt(3), folder=tmp_path).fit(3)
    for state in tmp_path.glob("checkpoints/*/state.json"):
        assert state.read_text().count("0.1") < 100  # the numbers are in the file of tensors
    make(lambda: {"task": again}, folder=tmp_path).resume()
    assert again.losses == whole.losses
    assert again.counts == whole.counts
    assert {*map(type, again.counts)} == {int}


def cross_entropy_sum(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets, reduction="sum")


def test_large_values_are_saved_once_they_change() -> None:
    class Owner:
        def __init__(self) -> None:
            self.bank = torch.zeros(2**19)  # 2 MiB
            self.numbers = list(range(2000))

    owner = Owner()
    states = ObjectStates({"owner": owner})
    assert states.state_dict() == {"owner": {"kind": "skipped"}}
    owner.bank[7], owner.bank[9] = 1, -1  # the sum is the same
    owner.numbers[3], owner.numbers[4] = 4, 3
    saved = states.state_dict()
    other = Owner()
    restored = ObjectStates({"owner": other})
    restored.state_dict()
    restored.load_state_dict(saved)
    assert torch.equal(other.bank, owner.bank)
    assert other.numbers == owner.numbers
    # A value that a resumed run has loaded differs from its start, so it is saved again.
    assert set(restored.state_dict()["owner"]["values"]) == {"bank", "numbers"}
