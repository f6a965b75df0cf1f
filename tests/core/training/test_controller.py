"""ReduceOnPlateau against torch's, and which way a score is good."""

import random

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from flambeau.errors import ArgumentError, InputError
from flambeau.training.history import History
from flambeau.training.optim.controller import Controller, Mode, ReduceOnPlateau


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
    with pytest.raises(InputError, match="factor must be between 0 and 1, not 2"):
        ReduceOnPlateau(factor=2.0)
    with pytest.raises(InputError, match="counts of evaluations, at least 0, not -1 and 0"):
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
