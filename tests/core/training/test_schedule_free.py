"""Optimizers with train() and eval(): evaluation and final weights are the averaged ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau import EMA, Callback, Learner, Predictor, Regression, TensorData, TrainingOptions
from flambeau.errors import InputError

DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(32, 3, generator=DRAWS, dtype=torch.float64)
Y = X[:, :1] - 2 * X[:, 1:2] + 0.5 * torch.randn(32, 1, generator=DRAWS, dtype=torch.float64)


class ScheduleFree(Optimizer):
    """Schedule-free SGD: gradients at y = (1 - b) z + b x, with x the mean of z."""

    def __init__(self, params: Any, lr: float, beta: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "beta": beta, "k": 0, "train_mode": False})

    @torch.no_grad()
    def _move(self, to_train: bool) -> None:
        for group in self.param_groups:
            if group["train_mode"] is not to_train:
                beta = group["beta"]
                for p in group["params"]:
                    if "z" in self.state[p]:
                        p.lerp_(self.state[p]["z"], 1 - beta if to_train else 1 - 1 / beta)
                group["train_mode"] = to_train

    def train(self) -> None:
        self._move(True)

    def eval(self) -> None:
        self._move(False)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("not in train mode")
            group["k"] += 1
            beta = group["beta"]
            for p in group["params"]:
                z = self.state[p].setdefault("z", p.detach().clone())
                x = p.lerp(z, 1 - 1 / beta)
                z.sub_(p.grad, alpha=group["lr"])
                x.lerp_(z, 1 / group["k"])
                p.copy_(torch.lerp(z, x, beta))


class Wrapped(Optimizer):
    """A wrapper without the two methods."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()


class Forwarding(Wrapped):
    """A wrapper with the two methods, which it forwards."""

    def train(self) -> None:
        self.inner.train()  # type: ignore[attr-defined]

    def eval(self) -> None:
        self.inner.eval()  # type: ignore[attr-defined]


def plain(model: Any, values: Any) -> dict[str, Optimizer]:
    return {"main": ScheduleFree(model.parameters(), values["lr"])}


def wrapped(model: Any, values: Any) -> dict[str, Optimizer]:
    return {"main": Wrapped(ScheduleFree(model.parameters(), values["lr"]))}


def forwarding(model: Any, values: Any) -> dict[str, Optimizer]:
    return {"main": Forwarding(ScheduleFree(model.parameters(), values["lr"]))}


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def learner(
    *callbacks: Callback,
    factory: Any = plain,
    valid: Any = None,
    folder: Path | None = None,
    **options: Any,
) -> Learner:
    batches = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 32, 8)]
    return Learner(
        TensorData.from_loaders(batches, valid or [(X, Y)]),
        net(),
        task=Regression(["y"]),
        choices={"device": "cpu", "bn": "train", "probe": "off"},
        training=TrainingOptions(doctor=False, optimizer=factory, **options),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def by_hand(epochs: int) -> tuple[list[float], list[dict[str, Tensor]]]:
    """Return the loss of each evaluation and the weights there."""
    model = net()
    optimizer = ScheduleFree(model.parameters(), 0.2)
    losses, weights = [], []
    for _ in range(epochs):
        optimizer.train()
        for i in range(0, 32, 8):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(X[i : i + 8]), Y[i : i + 8]).backward()
            optimizer.step()
        optimizer.eval()
        with torch.no_grad():
            losses.append(float(nn.functional.mse_loss(model(X), Y)))
        weights.append({k: v.clone() for k, v in model.state_dict().items()})
    return losses, weights


def close(model: Any, expected: Mapping[str, Tensor], tolerance: float = 1e-12) -> None:
    # The loop by hand rounds twice at each evaluation, when it moves between x and y.
    torch.testing.assert_close(
        dict(model.state_dict()), dict(expected), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("factory", [plain, wrapped, forwarding])
def test_evaluations_and_final_weights_are_those_of_the_loop_by_hand(factory: Any) -> None:
    one = learner(factory=factory)
    one.fit(3, lr=0.2, schedule="constant")
    losses, weights = by_hand(3)
    assert one.history.column("valid_loss") == pytest.approx(losses, rel=1e-12)
    close(one.model, weights[-1])
    assert one.evaluate()["loss"] == pytest.approx(losses[-1], rel=1e-12)


def test_an_evaluation_does_not_change_the_training() -> None:
    class Losses(Callback):
        def on_step_end(self, state: Any) -> None:
            self.weights = {k: v.clone() for k, v in state.model.state_dict().items()}

    often, once = Losses(), Losses()
    learner(often).fit(3, lr=0.2, schedule="constant")
    batches = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 32, 8)] * 3
    Learner(
        TensorData.from_loaders(batches, [(X, Y)]),
        net(),
        task=Regression(["y"]),
        training=TrainingOptions(doctor=False, optimizer=plain),
        callbacks=[once],
        quiet=True,
    ).fit(1, lr=0.2, schedule="constant")
    torch.testing.assert_close(often.weights, once.weights, rtol=0, atol=0)


def test_the_best_epoch_keeps_averaged_weights() -> None:
    scores = iter([0.0, 1.0, 2.0])  # the first epoch is the best

    class First(Regression):
        def evaluate(self, model: Any, batches: Any, context: Any) -> dict[str, float]:
            return {"loss": next(scores)}

    one = learner(keep_best="valid_loss")
    first = Learner(one.data, net(), task=First(["y"]), training=one.training, quiet=True)
    first.fit(3, lr=0.2, schedule="constant")
    close(first.model, by_hand(1)[1][0])


class StopAt(Callback):
    def on_step_end(self, state: Any) -> None:
        if state.position.step == 8:
            raise KeyboardInterrupt


def test_after_ctrl_c_model_and_checkpoint_give_the_averaged_weights(tmp_path: Path) -> None:
    expected = by_hand(2)[1][1]
    one = learner(StopAt(), folder=tmp_path)
    with pytest.raises(KeyboardInterrupt) as stopped:
        one.fit(3, lr=0.2, schedule="constant")
    assert "the weights averaged over 8 steps" in "".join(stopped.value.__notes__)
    close(one.model, expected)
    loaded = learner()
    loaded.load(tmp_path)
    close(loaded.model, expected)


def test_resume_equals_the_uninterrupted_run_and_export_predicts_the_same(tmp_path: Path) -> None:
    whole = learner()
    whole.fit(3, lr=0.2, schedule="constant")
    with pytest.raises(KeyboardInterrupt):
        learner(StopAt(), folder=tmp_path / "run").fit(3, lr=0.2, schedule="constant")
    again = learner(folder=tmp_path / "run")
    again.resume()
    close(again.model, whole.model.state_dict(), 0)
    again.export(tmp_path / "exported")
    predictor = Predictor.load(tmp_path / "exported", model=net())
    model = net()
    model.load_state_dict(by_hand(3)[1][-1])
    found = torch.tensor([float(row) for row in predictor.predict(X[:4])])
    torch.testing.assert_close(found, model(X[:4])[:, 0].detach().float(), rtol=1e-5, atol=1e-5)


def test_a_second_average_is_refused() -> None:
    with pytest.raises(InputError, match="ScheduleFree averages the weights itself"):
        learner(average=EMA()).fit(1, lr=0.1)
