"""ReduceOnPlateau against torch's, and which way a score is good."""

import random
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from flambeau import Callback, Learner, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, InputError
from flambeau.training.history import History
from flambeau.training.optim.controller import Controller, Mode, ReduceOnPlateau
from flambeau.training.state import TrainState


def ours(controller: ReduceOnPlateau, scores: list[float], lr: float) -> list[float]:
    history, rates = History(), []
    history.modes = {"loss": "min", "nll_loss": "min"}
    for score in scores:
        history.add({controller.monitor: score, "lr": lr})
        lr = controller.update(history, 0.5).get("lr", lr)
        rates.append(lr)
    return rates


def torchs(scheduler: ReduceLROnPlateau, scores: list[float]) -> list[float]:
    rates = []
    for score in scores:
        scheduler.step(score)
        rates.append(float(scheduler.optimizer.param_groups[0]["lr"]))
    return rates


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    ("patience", "cooldown", "threshold"), [(0, 0, 0.0), (2, 0, 1e-4), (1, 3, 0.05), (3, 1, 0.01)]
)
def test_lrs_equal_those_of_torch(
    seed: int, mode: Mode, patience: int, cooldown: int, threshold: float
) -> None:
    draw = random.Random(seed)
    scores = [1.0 + draw.random() * 0.3 - 0.01 * i for i in range(40)]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = ReduceLROnPlateau(
        optimizer, mode, 0.5, patience, threshold, cooldown=cooldown, min_lr=0.004, eps=0.0
    )
    controller = ReduceOnPlateau(
        "score",
        0.5,
        patience,
        threshold=threshold,
        cooldown=cooldown,
        min_value=0.004,
        mode=mode,
    )
    assert ours(controller, scores, 0.1) == torchs(scheduler, scores)


def test_the_comparison_contains_reductions() -> None:
    assert ours(ReduceOnPlateau("loss", 0.5, 1), [1.0] * 6, 0.8) == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]


def test_nan_is_no_improvement() -> None:
    nan = float("nan")
    assert ours(ReduceOnPlateau("loss", 0.5, 0), [1.0, nan, 0.5, nan], 0.8)[-1] == 0.2


def test_negative_scores_can_improve() -> None:
    # A log-likelihood: torch's relative bar would call every worse score an improvement.
    controller = ReduceOnPlateau("nll_loss", 0.5, 0, threshold=0.1)
    assert ours(controller, [-10.0, -12.0, -11.9], 1.0) == [1.0, 1.0, 0.5]


def test_it_is_a_pure_function_of_the_history() -> None:
    controller, history = ReduceOnPlateau("loss", 0.1, 1, mode="min"), History()
    for _ in range(3):
        history.add({"loss": 1.0, "lr": 0.1})
    first = controller.update(history, 0.2)
    assert first == {"lr": pytest.approx(0.01)}
    assert controller.update(history, 0.9) == first
    assert isinstance(controller, Controller)


def test_another_value_than_lr() -> None:
    history = History()
    history.modes["valid_accuracy"] = "max"
    for _ in range(2):
        history.add({"valid_accuracy": 0.5, "teacher_forcing": 0.8, "lr": 1.0})
    controller = ReduceOnPlateau("valid_accuracy", 0.5, 0, name="teacher_forcing")
    assert controller.update(history, 0.5) == {"teacher_forcing": 0.4}


def test_the_smallest_value_is_not_set_again() -> None:
    history = History()
    for _ in range(2):
        history.add({"loss": 1.0, "lr": 0.01})
    assert ReduceOnPlateau("loss", 0.5, 0, min_value=0.01, mode="min").update(history, 0.5) == {}


def test_an_unknown_direction_is_refused() -> None:
    history = History()
    history.add({"valid_wer": 1.0, "lr": 0.1})
    with pytest.raises(ArgumentError, match=r"'valid_wer', but .*higher_is_better = True or False"):
        ReduceOnPlateau("valid_wer").update(history, 0.5)
    history.modes["valid_wer"] = "min"
    assert ReduceOnPlateau("valid_wer").update(history, 0.5) == {}


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(InputError, match=r"factor must be .* above 0 and below 1, not 2"):
        ReduceOnPlateau(factor=2.0)
    with pytest.raises(InputError, match=r"patience must be .* at least 0, not -1"):
        ReduceOnPlateau(patience=-1)
    with pytest.raises(InputError, match="mode is 'smallest'; give"):
        ReduceOnPlateau(mode="smallest")
    history = History()
    history.add({"train_loss": 1.0, "valid_accuracy": 0.5, "lr": 1.0})
    with pytest.raises(
        InputError, match=r"no column of numbers 'valid_acuracy'.*Did you mean 'valid_acc"
    ):
        ReduceOnPlateau("valid_acuracy").update(history, 0.0)
    with pytest.raises(InputError, match="no column of numbers 'valid_loss'"):
        ReduceOnPlateau().update(History(), 0.0)


def _trained(folder: Path | None = None) -> Learner:
    """A learner whose loss never improves by the threshold, so that it is always on a plateau."""
    plateau = ReduceOnPlateau("train_loss", 0.5, patience=2, threshold=0.99)
    x = torch.linspace(-1, 1, 16).reshape(8, 2)
    return Learner(
        TensorData.from_tensors(x, x[:, 0], valid=0),
        nn.Linear(2, 1),
        choices={"optimizer": "sgd", "lr": 0.01, "schedule": "constant", "probe": "off"},
        training=TrainingOptions(controllers=(plateau,)),
        folder=folder,
        quiet=True,
    )


def _rates(learner: Learner) -> list[float]:
    return [round(rate, 6) for rate in learner.history.column("lr")]


def test_a_plateau_counts_the_epochs_of_its_own_fit() -> None:
    learner = _trained()
    learner.fit(3)
    assert _rates(learner) == [0.01] * 3
    learner.fit(5)  # the third bad epoch of this fit is its fourth
    assert _rates(learner) == [0.01] * 3 + [0.01] * 4 + [0.005]
    assert learner.history.column("lr", last_fit=True) == learner.history.column("lr")[3:]


def test_a_resumed_fit_continues_its_count(tmp_path: Path) -> None:
    unbroken = _trained()
    unbroken.fit(2)
    unbroken.fit(6)
    learner = _trained(tmp_path / "run")
    learner.fit(2)
    learner.callbacks = (StopAfter(5),)
    with pytest.raises(KeyboardInterrupt):
        learner.fit(6)
    resumed = _trained(tmp_path / "run")
    resumed.resume()
    assert _rates(resumed) == _rates(unbroken)
    assert resumed.history.first_row == 2


class StopAfter(Callback):
    """Interrupts the run after a number of epochs, counted over all fits."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_start(self, state: TrainState) -> None:
        if len(state.history.rows) == self.epochs:
            raise KeyboardInterrupt
