"""The log-loss after the best temperature, and the epoch that it selects."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from flambeau import EarlyStopping, Learner, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, PlanError
from flambeau.task.probability_metrics import LogLoss, RefinedLogLoss


def rows(n: int = 400, k: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(n, k, generator=generator)
    targets = torch.multinomial((logits / 3).softmax(1), 1, generator=generator).squeeze(1)
    return logits, targets


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_lowest_log_loss_over_all_temperatures(weighted: bool) -> None:
    logits, targets = rows()
    generator = torch.Generator().manual_seed(2)
    weights = torch.rand(len(targets), generator=generator) + 0.1 if weighted else None
    metric = RefinedLogLoss()
    for part in torch.arange(400).split(150):
        metric.update(logits[part], targets[part], None if weights is None else weights[part])

    def loss(log_t: float) -> float:
        each = F.cross_entropy(logits.double() / math.exp(log_t), targets, reduction="none")
        w = torch.ones_like(each) if weights is None else weights.double()
        return float((each * w).sum() / w.sum())

    assert metric.compute() == pytest.approx(minimize_scalar(loss).fun, rel=1e-7)
    scaled = RefinedLogLoss()
    scaled.update(8 * logits, targets, weights)  # exact in float32
    assert scaled.compute() == pytest.approx(metric.compute(), rel=1e-9)
    assert loss(0.0) > metric.compute() + 0.01


def test_without_a_best_temperature_it_is_a_bound() -> None:
    right = RefinedLogLoss()
    right.update(torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1]))
    plain = LogLoss()
    plain.update(torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 1]))
    assert right.compute() == pytest.approx(plain.compute())
    wrong = RefinedLogLoss()
    wrong.update(torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([1, 0]))
    assert wrong.compute() == pytest.approx(math.log(2))
    assert math.isnan(RefinedLogLoss().compute())
    ignored = RefinedLogLoss(ignore_index=-100)
    ignored.update(torch.zeros(2, 2), torch.tensor([-100, -100]))
    assert math.isnan(ignored.compute())


def data() -> TensorData:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(120, 6, generator=generator)
    y = (x[:, 0] + 0.8 * torch.randn(120, generator=generator) > 0).long()
    return TensorData.from_tensors(x, y, valid=40)


METRICS = {"metrics": ["accuracy", "refined_log_loss"], "lr": 0.01}


@pytest.mark.parametrize("way", ["choice", "option"])
def test_the_plan_keeps_the_best_epoch(way: str) -> None:
    column = "valid_refined_log_loss"
    choices = {**METRICS, "keep_best": column} if way == "choice" else METRICS
    training = TrainingOptions(keep_best=column if way == "option" else None)
    learner = Learner(data(), choices=choices, training=training, quiet=True)
    assert learner.plan["keep_best"].source == "user"
    learner.fit(12)
    scores = learner.history.column(column)
    assert scores[-1] > min(scores)  # it overfits: the last epoch is not the best
    assert learner.evaluate("valid")["refined_log_loss"] == pytest.approx(min(scores), rel=1e-6)
    again = Learner(data(), plan=learner.plan, quiet=True)
    again.fit(12)
    found = again.evaluate("valid")["refined_log_loss"]
    assert found == pytest.approx(min(scores), rel=1e-6)


def test_a_callback_that_restores_an_epoch_has_precedence_over_the_plan() -> None:
    stop = EarlyStopping("valid_accuracy", patience=20)
    choices = {**METRICS, "keep_best": "valid_refined_log_loss"}
    learner = Learner(data(), choices=choices, callbacks=[stop], quiet=True)
    learner.fit(12)
    best = max(learner.history.column("valid_accuracy"))
    assert learner.evaluate("valid")["accuracy"] == pytest.approx(best)


def test_two_different_columns_are_refused() -> None:
    with pytest.raises(ArgumentError, match="keep_best is 'valid_loss' in choices and 'valid_acc"):
        Learner(
            data(),
            choices={"keep_best": "valid_loss"},
            training=TrainingOptions(keep_best="valid_accuracy"),
        )
    with pytest.raises(PlanError, match="a column of the history"):
        Learner(data(), choices={"keep_best": 3})
