"""The optimizer's state by parameter name: it fits any grouping of the same parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Classification, Learner, Phase, Schedule, Task, TensorData, TrainingOptions
from flambeau.errors import ResumeError
from flambeau.training.run_state.optimizer_state import (
    load_state_by_name,
    parameter_names,
    state_by_name,
)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def gradients(parameters: Iterable[nn.Parameter]) -> None:
    draws = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=draws, dtype=parameter.dtype)


def test_a_state_loads_into_another_grouping() -> None:
    one, other = net(), net()
    first = torch.optim.AdamW(one.parameters(), lr=0.1)
    gradients(one.parameters())
    first.step()
    saved = state_by_name(first, parameter_names(one, Task()))
    assert set(saved["state"]) == {f"model.{name}" for name, _ in one.named_parameters()}

    backwards = list(other.parameters())[::-1]
    second = torch.optim.AdamW([{"params": [p]} for p in backwards], lr=0.5)
    other.load_state_dict(one.state_dict())
    load_state_by_name(second, saved, parameter_names(other, Task()))
    assert {group["lr"] for group in second.param_groups} == {0.1}
    for optimizer, model in ((first, one), (second, other)):
        gradients(model.parameters())
        optimizer.step()
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        # torch may take another of its loops for more param groups, which rounds differently.
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_lbfgs_keeps_its_state_under_the_first_name() -> None:
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(2, 3).double()).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    saved = state_by_name(optimizer, parameter_names(model, Task()))
    again = torch.optim.LBFGS(model.parameters(), max_iter=2)
    load_state_by_name(again, saved, parameter_names(model, Task()))
    mine, theirs = (each.state_dict()["state"][0] for each in (again, optimizer))
    assert mine["n_iter"] == theirs["n_iter"] > 0
    assert torch.equal(mine["d"], theirs["d"])


def test_parameters_of_the_task_and_others_have_names() -> None:
    class WeightedTask(nn.Module, Task):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

    model, task, free = net(), WeightedTask(), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([*model.parameters(), task.scale, free], lr=0.1)
    saved = state_by_name(optimizer, parameter_names(model, task))
    assert saved["param_groups"][0]["params"][-2:] == ["task.scale", "other.0"]


def test_other_parameters_are_refused_by_name() -> None:
    model = net()
    saved = state_by_name(
        torch.optim.SGD(model.parameters(), lr=0.1), parameter_names(model, Task())
    )
    fewer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(ResumeError, match=r"model\.2\.bias is only in one"):
        load_state_by_name(fewer, saved, parameter_names(model, Task()))


class StopInError(Exception):
    """Ends a run between two steps."""


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_resumes_in_its_third_phase_without_the_first_two(
    optimizer: str, tmp_path: Any
) -> None:
    phases = [
        Phase(1, {"lr": Schedule("constant", 1e-2)}, trainable=("2",)),
        Phase(1, {"lr": Schedule("linear", 1e-2)}, lr_scales={"0": 0.1}),
        Phase(2, {"lr": Schedule("cosine", 1e-2)}, lr_scales={"0": 0.3, "2": 2.0}),
    ]
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)).double()
    data = TensorData.from_tensors(x, (x[:, 0] > 0).long())
    choices = {"batch_size": 8, "optimizer": optimizer}

    def learner(**more: Any) -> Learner:
        task = Classification(["a", "b"])
        return Learner(data, net(), task=task, choices=choices, folder=tmp_path, quiet=True, **more)

    def step_until(step: int) -> Any:
        from flambeau.training import train_step

        def limited(model: Any, batches: Any, task: Any, it: Any) -> Any:
            if it.context.step == step:
                raise StopInError
            return train_step(model, batches, task, it)

        return limited

    whole = Learner(data, net(), task=Classification(["a", "b"]), choices=choices, quiet=True)
    whole.fit_phases(phases)
    broken = learner(training=TrainingOptions(train_step=step_until(21)))
    with pytest.raises(StopInError):
        broken.fit_phases(phases)
    again = learner()
    again.resume()
    for mine, theirs in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
