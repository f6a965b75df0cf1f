"""What a ``state_dict`` leaves out is in checkpoints too: a resumed run is the same to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from flambeau import EMA, Callback, Checkpointing, Classification, Learner, TensorData
from flambeau import TrainingOptions as Options
from flambeau.artefact.checkpoint_files import latest_checkpoint
from flambeau.errors import ArtefactError
from flambeau.training.run_state.module_state import copied_state, load_state

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Base(nn.Module):
    """A linear layer whose input depends on a state that changes with every training batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.change(x.detach().mean(0))
        return self.head(self.stem(x) * self.factor())

    def change(self, mean: torch.Tensor) -> None:
        raise NotImplementedError

    def factor(self) -> torch.Tensor | float:
        raise NotImplementedError


class Buffer(Base):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("center", torch.ones(4), persistent=False)
        self.center: torch.Tensor

    def change(self, mean: torch.Tensor) -> None:
        self.center = 0.9 * self.center + mean

    def factor(self) -> torch.Tensor:
        return self.center


class LateBuffer(Buffer):
    """The buffer has no value before the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.center = None  # type: ignore[assignment]

    def change(self, mean: torch.Tensor) -> None:
        self.center = mean + (0 if self.center is None else 0.9 * self.center)

    def factor(self) -> Any:
        return 1 if self.center is None else self.center


class Inner(Base):
    """The state is that of a module inside, in attributes that are a number and a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Counter()

    def change(self, mean: torch.Tensor) -> None:
        self.inner.n += 1
        self.inner.mean = 0.5 * self.inner.mean + mean

    def factor(self) -> torch.Tensor:
        return self.inner.mean + 1 / (1 + self.inner.n)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n, self.mean = 0, torch.ones(4)


class Extra(Base):
    def __init__(self) -> None:
        super().__init__()
        self.seen = [1.0]

    def get_extra_state(self) -> Any:
        return {"seen": self.seen[-3:], "name": "scale"}

    def set_extra_state(self, state: Any) -> None:
        self.seen = list(state["seen"])

    def change(self, mean: torch.Tensor) -> None:
        self.seen.append(0.9 * self.seen[-1] + float(mean[0]))

    def factor(self) -> float:
        return self.seen[-1]


def leave_out_base(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    del state[prefix + "base"]


class Adapter(Base):
    """Its ``state_dict`` leaves out a parameter, as that of an adapter may."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Parameter(torch.ones(4))
        self.register_state_dict_post_hook(leave_out_base)

    def change(self, mean: torch.Tensor) -> None:
        pass

    def factor(self) -> torch.Tensor:
        return self.base


MODELS = [Buffer, LateBuffer, Inner, Extra, Adapter]


class Interrupt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.step:
            raise KeyboardInterrupt


def make(
    kind: type[nn.Module],
    folder: Path,
    *callbacks: Callback,
    task: Classification | None = None,
    loader: bool = False,
    **options: Any,
) -> Learner:
    torch.manual_seed(1)
    data = TensorData.from_tensors(X, Y, valid=20)
    if loader:
        rows = TensorDataset(X, Y)
        data = TensorData.from_loaders(
            DataLoader(rows, 10, shuffle=True), DataLoader(rows, 20), n_classes=2
        )
    return Learner(
        data,
        kind(),
        task=task,
        choices={"probe": "off"} if loader else {"batch_size": 10, "probe": "off"},
        training=Options(doctor=False, **options),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def bits(learner: Learner) -> list[float]:
    parameters = torch.cat([p.detach().flatten() for p in learner.model.parameters()]).tolist()
    return [*parameters, *learner.history.step_losses, *learner.history.column("valid_loss")]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("step", "options"),
    [(6, {}), (8, {"keep_best": "valid_loss", "average": EMA(0.5)}), (6, {"loader": True})],
)
def test_a_resumed_run_is_the_same(
    kind: type[nn.Module], step: int, options: dict[str, Any], tmp_path: Path
) -> None:
    whole = make(kind, tmp_path / "whole", **options)
    whole.fine_tune(2, lr=0.05)
    with pytest.raises(KeyboardInterrupt):
        make(kind, tmp_path / "part", Interrupt(step), **options).fine_tune(2, lr=0.05)
    resumed = make(kind, tmp_path / "part", **options)
    resumed.resume()
    assert bits(resumed) == bits(whole)


@pytest.mark.parametrize("kind", MODELS)
def test_a_copied_state_is_restored_in_place(kind: type[nn.Module]) -> None:
    model = kind().train()
    before = copied_state(model)
    expected = model.eval()(X)
    model.train()(X)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    tensors = list(model.parameters())
    load_state(model, before)
    assert all(a is b for a, b in zip(tensors, model.parameters(), strict=True))
    if kind is not LateBuffer:  # a buffer that was None keeps its later value
        assert torch.equal(model.eval()(X), expected)


class Counting(Classification):
    """A task whose loss depends on an attribute that changes with every training batch."""

    calls = 0

    def loss(self, outputs: Any, batch: Any) -> Any:
        total, weight = super().loss(outputs, batch)
        self.calls += outputs.requires_grad
        return total * (1 + self.calls), weight


class Weighted(Classification, nn.Module):
    """A task with a parameter and a buffer, which its loss changes."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        Classification.__init__(self, ["a", "b"])
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("center", torch.ones(()), persistent=False)

    def loss(self, outputs: Any, batch: Any) -> Any:
        total, weight = super().loss(outputs, batch)
        if outputs.requires_grad:
            self.center = self.center + outputs.detach().mean()
        return total * self.center + self.scale**2 * weight, weight


@pytest.mark.parametrize("task", [lambda: Counting(["a", "b"]), Weighted])
def test_the_state_of_a_task_is_resumed(task: Callable[[], Any], tmp_path: Path) -> None:
    def new(folder: str, *callbacks: Callback) -> Learner:
        mine = task()

        def optimizers(model: nn.Module, values: Any) -> Any:
            trained = list(mine.parameters()) if isinstance(mine, nn.Module) else []
            return {"main": torch.optim.Adam([*model.parameters(), *trained], values["lr"])}

        return make(Adapter, tmp_path / folder, *callbacks, task=mine, optimizer=optimizers)

    whole = new("whole")
    whole.fit(3)
    with pytest.raises(KeyboardInterrupt):
        new("part", Interrupt(6)).fit(3)
    resumed = new("part")
    resumed.resume()
    assert bits(resumed) == bits(whole)


def test_an_extra_state_that_cannot_be_saved_is_refused_at_the_start(tmp_path: Path) -> None:
    class Strange(Extra):
        def get_extra_state(self) -> Any:
            return {"seen": self.seen, "lock": object()}

    learner = make(Strange, tmp_path)
    with pytest.raises(ArtefactError, match=r"\['model'\]\['_extra_state'\]\['lock'\] is <object"):
        learner.fit(1)
    assert learner.history.rows == []
    assert latest_checkpoint(tmp_path) is None
    never = Checkpointing(every_s=None, at_epoch_end=False)
    assert len(make(Strange, tmp_path, never).fit(1).rows) == 1


def test_an_incomplete_export_is_refused(tmp_path: Path) -> None:
    learner = make(Adapter, tmp_path / "run")
    with pytest.raises(ArtefactError, match=r"state_dict\(\) of Adapter leaves out 'base'"):
        learner.export(tmp_path / "export")
    with pytest.raises(ArtefactError, match=r"leaves out 'base'"):
        learner.save(tmp_path / "weights")
