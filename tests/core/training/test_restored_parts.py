"""Each part of a checkpoint is restored, and a run with other settings is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import EMA, SWA, Callback, Classification, EarlyStopping, Learner, TensorData
from flambeau import TrainingOptions as Options
from flambeau.data import Batch
from flambeau.errors import ResumeError
from flambeau.phases import Phase, Schedule

X = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
STEPS = 3  # in an epoch


class Scripted(Classification):
    """Its validation loss is the best in the epoch ``best``."""

    def __init__(self, best: int = 0) -> None:
        super().__init__(["a", "b"])
        self.best = best

    def evaluate(self, model: Any, batches: Any, context: Any) -> dict[str, float]:
        scores = super().evaluate(model, batches, context)
        return {**scores, "loss": scores["loss"] - 10 * (context.epoch == self.best)}


class Once:
    """A controller that sets values after the first epoch only."""

    def __init__(self, **values: float) -> None:
        self.values = values

    def update(self, history: Any, progress: float) -> dict[str, float]:
        return self.values if len(history.rows) == 1 else {}


class Interrupt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.step:
            raise KeyboardInterrupt


class Seen(Callback):
    """Notes named values and settings of the optimizers in every step."""

    def __init__(self) -> None:
        self.settings: list[Any] = []

    def on_step_end(self, state: Any) -> None:
        groups = [
            {k: v for k, v in group.items() if k in ("lr", "weight_decay", "betas", "momentum")}
            for optimizer in state.optimizers.values()
            for group in optimizer.param_groups
        ]
        self.settings.append((dict(state.values), groups))


def bad_batch(step: int) -> Callable[[Batch, int], Batch]:
    """A transform that makes the batch of one step non-finite."""
    calls: list[None] = []

    def transform(batch: Batch, seed: int) -> Batch:
        if torch.is_grad_enabled():
            calls.append(None)
            if len(calls) == step:
                return Batch(
                    {"input": batch.inputs["input"] * torch.nan},
                    batch.targets,
                    indices=batch.indices,
                    weight=batch.weight,
                    epoch=batch.epoch,
                )
        return batch

    return transform


def make(folder: Path, *callbacks: Callback, best: int = 0, **options: Any) -> Learner:
    torch.manual_seed(4)
    return Learner(
        TensorData.from_tensors(X, (X[:, 0] > 0).long(), valid=20),
        nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2)
        ),
        task=Scripted(best),
        choices={"batch_size": 20, "probe": "off"},
        training=Options(doctor=False, **options),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def state(learner: Learner) -> list[Tensor]:
    return [value.clone() for value in learner.model.state_dict().values()]


def fit(learner: Learner) -> None:
    learner.fit(5, lr=0.1)


def fit_adapted(learner: Learner) -> None:
    learner.fit_phases([Phase(5, {"lr": Schedule("constant", 0.2)}, bn="adapt")])


def two_optimizers(model: nn.Module, values: Any) -> dict[str, torch.optim.Optimizer]:
    parameters = list(model.parameters())
    return {
        "one": torch.optim.SGD(parameters[:4], values["lr"], momentum=0.9),
        "two": torch.optim.Adam(parameters[4:], values["lr"]),
    }


@pytest.mark.parametrize("step", [4, 8])
@pytest.mark.parametrize(
    ("train", "options"),
    [
        (fit, {"keep_best": "valid_loss"}),
        (fit, {"keep_best": "valid_loss", "average": EMA(0.8)}),
        (fit, {"average": EMA(0.8)}),
        (fit, {"average": SWA(0.1)}),
        (fit, {"controllers": (Once(lr=0.01),)}),
        (fit, {"controllers": (Once(weight_decay=0.5),)}),
        (fit, {"controllers": (Once(momentum=0.1),), "optimizer": two_optimizers}),
        (fit_adapted, {}),
        (fit_adapted, {"clip_norm": 0.1}),
    ],
)
def test_a_part_is_restored(step: int, train: Any, options: dict[str, Any], tmp_path: Path) -> None:
    seen_whole, seen_part, seen_rest = Seen(), Seen(), Seen()
    whole = make(tmp_path / "whole", seen_whole, **options)
    train(whole)
    with pytest.raises(KeyboardInterrupt):
        train(make(tmp_path / "part", seen_part, Interrupt(step), **options))
    resumed = make(tmp_path / "part", seen_rest, **options)
    resumed.resume()
    assert all(map(torch.equal, state(resumed), state(whole)))
    assert [*seen_part.settings, *seen_rest.settings] == seen_whole.settings
    assert resumed.history.column("train_loss") == whole.history.column("train_loss")


@pytest.mark.filterwarnings("ignore:.nonfinite-updates")
@pytest.mark.parametrize("at", [1, 3])
def test_a_bad_step_after_a_resume_restores_the_statistics(at: int, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", nonfinite="skip", transforms=(bad_batch(4 + at),))
    fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(make(tmp_path / "part", Interrupt(4), nonfinite="skip"))
    resumed = make(tmp_path / "part", nonfinite="skip", transforms=(bad_batch(at),))
    resumed.resume()
    assert all(map(torch.equal, state(resumed), state(whole)))
    counts = [one.history.column("nonfinite_updates") for one in (whole, resumed)]
    assert counts[0] == counts[1] == [1]


def test_early_stopping_counts_on(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", EarlyStopping(patience=3))
    fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(make(tmp_path / "part", EarlyStopping(patience=3), Interrupt(8)))
    resumed = make(tmp_path / "part", EarlyStopping(patience=3))
    resumed.resume()
    assert len(resumed.history.rows) == len(whole.history.rows) == 4
    assert all(map(torch.equal, state(resumed), state(whole)))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"clip_norm": 1.0}, {"clip_norm": 2.0}, "clip_norm is 1.0 in the checkpoint and 2.0"),
        ({}, {"clip_norm": 1.0}, "clip_norm is None in the checkpoint and 1.0"),
        ({"average": EMA(0.9)}, {"average": EMA(0.8)}, "averaging is EMA.*0.9.* and EMA.*0.8"),
        ({"average": EMA(0.9)}, {"average": SWA()}, "averaging is EMA.* and SWA"),
        ({"average": EMA(0.9)}, {}, "averaging is EMA.* and None"),
        ({}, {"accumulate": 2}, "accumulate is 2 in this learner, but 1 in"),
        ({"accumulate": 3}, {"accumulate": 2}, "accumulate is 2 in this learner, but 3 in"),
        ({}, {"optimizer": two_optimizers}, "optimizers is main: AdamW? .*main: None|optimizers"),
    ],
)
def test_other_settings_are_refused(
    before: dict[str, Any], after: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(make(tmp_path, Interrupt(4), **before))
    with pytest.raises(ResumeError, match=message):
        make(tmp_path, **after).resume()


def test_clipping_that_is_in_the_plan_continues(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", clip_norm=0.1)
    fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(make(tmp_path / "run", Interrupt(4), clip_norm=0.1))
    resumed = make(tmp_path / "run")
    resumed.resume()
    assert all(map(torch.equal, state(resumed), state(whole)))


def test_values_are_restored_after_the_last_step_of_an_epoch(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    fit(whole)
    with pytest.raises(KeyboardInterrupt):
        fit(make(tmp_path / "part", Interrupt(2 * STEPS)))
    resumed = make(tmp_path / "part")
    resumed.resume()
    for name in ("lr", "step"):
        assert resumed.history.column(name) == whole.history.column(name)


def test_the_loss_scale_of_fp16_is_restored(tmp_path: Path) -> None:
    """Its first value overflows here for several steps, which change no weights."""

    def one(name: str, *callbacks: Callback) -> Learner:
        torch.manual_seed(4)
        x = 100 * X[:8]
        return Learner(
            TensorData.from_loaders([(x, (x[:, 0] > 0).long())] * 12, [(x, (x[:, 0] > 0).long())]),
            nn.Linear(4, 2),
            task=Classification(["a", "b"]),
            choices={"device": "cpu", "precision": "fp16", "probe": "off", "optimizer": "sgd"},
            training=Options(doctor=False),
            callbacks=callbacks,
            folder=tmp_path / name,
            quiet=True,
        )

    whole = one("whole")
    whole.fit(1, lr=1e-4, schedule="constant")
    assert not torch.equal(state(whole)[0], state(one("first"))[0])
    with pytest.raises(KeyboardInterrupt):
        one("broken", Interrupt(9)).fit(1, lr=1e-4, schedule="constant")
    resumed = one("broken")
    resumed.resume()
    assert all(map(torch.equal, state(resumed), state(whole)))
