"""A resumed run with a user's optimizer equals an uninterrupted one, whatever its state holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau import Callback, Classification, Learner, TensorData, TrainingOptions
from flambeau.errors import ResumeError


class Stop(Callback):
    """Ends a run as Ctrl-C does."""

    def on_step_end(self, state: Any) -> None:
        if state.position.step == 3:
            raise KeyboardInterrupt


class WideState(Optimizer):
    """Momentum in float64 and in a list, an integer count and a mask."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = [torch.zeros(p.shape, dtype=torch.float64)]
                    state["count"] = torch.zeros((), dtype=torch.int64)
                    state["odd"] = torch.zeros(p.shape, dtype=torch.bool)
                state["momentum"][0].mul_(0.9).add_(p.grad.double())
                state["count"] += 1
                state["odd"] = ~state["odd"]
                p.sub_((group["lr"] * state["momentum"][0] * state["odd"]).to(p.dtype))


class Wrapper(Optimizer):
    """Keeps another optimizer, whose param groups it shares, as SAM and Lookahead do."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})
        self.base = torch.optim.Adam(self.param_groups, lr=lr)
        self.param_groups = self.base.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.base.step()


class Counting(torch.optim.SGD):
    """Counts its steps under a key that is no parameter."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        count = self.state.get("steps", 0)
        self.state["steps"] = count + 1
        for group in self.param_groups:
            group["lr"] *= 0.5**count
        super().step()


class OwnFormat(torch.optim.SGD):
    def state_dict(self) -> dict[str, Any]:
        return {"mine": super().state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict["mine"])


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)


def learner(model: nn.Module, folder: Path | None, *callbacks: Callback, **options: Any) -> Learner:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    data = TensorData.from_tensors(x, (x[:, 0] > 0).long())
    return Learner(
        data,
        model,
        task=Classification(["a", "b"]),
        training=TrainingOptions(doctor=False, **options),
        choices={"batch_size": 8},
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def momentum_sgd(kind: type[torch.optim.SGD]) -> Callable[[Any, float], Optimizer]:
    return lambda params, lr: kind(params, lr=lr, momentum=0.9)


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (WideState, torch.float32),
        (WideState, torch.bfloat16),
        (Wrapper, torch.float32),
        (momentum_sgd(Counting), torch.float32),
        (momentum_sgd(OwnFormat), torch.float32),
    ],
    ids=["dtypes", "dtypes-bf16", "wrapper", "count", "own-format"],
)
def test_resume_equals_the_uninterrupted_run(make: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    def factory(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
        return {"main": make(model.parameters(), values["lr"])}

    whole = learner(net(dtype), None, optimizer=factory)
    whole.fit(2, lr=0.01)
    with pytest.raises(KeyboardInterrupt):
        learner(net(dtype), tmp_path, Stop(), optimizer=factory).fit(2, lr=0.01)
    again = learner(net(dtype), tmp_path, optimizer=factory)
    again.resume()
    for mine, theirs in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "adamw", "rmsprop", "sgd"])
def test_channels_last_weights_resume_bitwise(optimizer: str, tmp_path: Path) -> None:
    """Checkpoints are contiguous; a fused kernel reads moments in the order of memory."""
    x = torch.randn(60, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    data = TensorData.from_tensors(x, (x.mean((1, 2, 3)) > 0).long())

    def new(folder: Path | None, *callbacks: Callback) -> Learner:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 2))
        choices = {"batch_size": 8, "optimizer": optimizer, "memory_format": "channels_last"}
        return Learner(data, model, choices=choices, folder=folder, callbacks=callbacks, quiet=True)

    whole, broken, again = new(None), new(tmp_path, Stop()), new(tmp_path)
    whole.fit(2, lr=0.01)
    with pytest.raises(KeyboardInterrupt):
        broken.fit(2, lr=0.01)
    again.resume()
    assert not again.model[0].weight.is_contiguous()
    for mine, theirs in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_resume_with_other_frozen_parameters_is_refused(tmp_path: Path) -> None:
    frozen = net()
    frozen[0].requires_grad_(False)
    with pytest.raises(KeyboardInterrupt):
        learner(frozen, tmp_path, Stop()).fit(2, lr=0.01)
    weight: Tensor = net()[0].weight
    with pytest.raises(ResumeError, match=r"requires_grad is 0\.weight: False in the checkpoint"):
        learner(net(), tmp_path).resume()
    again = net()
    again[0].requires_grad_(False)
    learner(again, tmp_path).resume()
    assert torch.equal(again[0].weight, weight)
