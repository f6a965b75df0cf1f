"""The alarm rings where norm layers train otherwise than they are evaluated, and only there."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from flambeau import (
    Callback,
    Classification,
    Learner,
    Phase,
    Schedule,
    TensorData,
    TrainingOptions,
)
from flambeau.training import EMA, StepResult
from flambeau.training.norm import bn_gap


def net(momentum: float | None = 0.1, drop: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16),
        nn.BatchNorm1d(16, momentum=momentum),
        nn.ReLU(),
        nn.Dropout(drop),
        nn.Linear(16, 2),
    )


def learner(model: nn.Module, offset: float = 4.0, **arguments: object) -> Learner:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=draws)
    y = (x[:, 0] + x[:, 1] > 0).long()
    arguments = {"choices": {"batch_size": 16, "normalisation": "none"}, **arguments}
    return Learner(TensorData.from_tensors(x + offset, y), model, quiet=True, **arguments)


def gap_warnings(fit, *arguments: object, **named: object) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit(*arguments, **named)
    return [str(each.message) for each in found if "[train-eval-gap]" in str(each.message)]


def test_statistics_that_are_never_updated() -> None:
    """The mismatch by hand: torch's momentum of 0 with batch statistics."""
    [text] = gap_warnings(learner(net(momentum=0.0)).fit, 4, lr=0.02)
    assert "as in evaluation" in text
    assert "times higher" in text
    assert '"bn": "adapt"' in text


def test_dropout_gives_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner(net(drop=0.9)).fit(4, lr=0.02)


@pytest.mark.parametrize("bn", ["adapt", "eval"])
def test_no_warning_where_both_modes_are_the_same(bn: str, monkeypatch) -> None:
    model = net(momentum=0.0)
    choices = {"batch_size": 16, "normalisation": "none", "bn": bn}
    assert gap_warnings(learner(model, choices=choices).fit, 4, lr=0.02) == []


def test_measured_once_after_the_first_epoch_of_a_phase() -> None:
    class Rows(Callback):
        def on_epoch_end(self, state) -> None:
            rows.append(len(found))

    rows: list[int] = []
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        told = learner(net(momentum=0.0), callbacks=[Rows()])
        told.fit(3, lr=0.02)
    assert rows == [1, 1, 1]


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [((None,) * 6, [0, 5]), ((["1", "4"],) * 3 + (None,) * 3, [0, 2, 3, 5])],
)
def test_phases_that_train_the_same_layers_are_measured_twice(
    trainable: tuple, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    measure = bn_gap._measure_or_none

    def counted(run):
        seen.append(run.state.position.phase)
        return measure(run)

    monkeypatch.setattr(bn_gap, "_measure_or_none", counted)
    phases = [
        Phase(1, {"lr": Schedule("constant", 0.02)}, trainable=each and tuple(each))
        for each in trainable
    ]
    learner(net()).fit_phases(phases)
    assert seen == expected


def test_statistics_that_lag_behind() -> None:
    """Statistics lag behind until the end with a momentum of 0.0001, but not with 0.1."""
    [text] = gap_warnings(learner(net(momentum=1e-4)).fit, 4, lr=0.02)
    assert "times higher" in text
    choices = {"batch_size": 64, "normalisation": "none"}
    assert gap_warnings(learner(net(), choices=choices).fit, 20, lr=0.02) == []


def test_small_batches_have_a_higher_training_loss() -> None:
    first = learner(net(), choices={"batch_size": 64, "normalisation": "none"})
    first.fit(20, lr=0.02)
    choices = {"batch_size": 2, "normalisation": "none", "bn": "train"}
    [text] = gap_warnings(learner(first.model, choices=choices).fit, 1, lr=1e-5)
    assert "times lower" in text
    assert "too noisy. Use larger batches" in text


def test_negligible_losses_give_no_warning() -> None:
    class Tiny(Classification):
        """Its loss falls to a millionth after the first step."""

        scale = 1.0

        def loss(self, outputs, batch):
            total, weight = super().loss(outputs, batch)
            return total * self.scale, weight

    class Shrink(Callback):
        def on_step_end(self, state) -> None:
            state.task.scale = 1e-6

    told = learner(net(momentum=0.0), task=Tiny(["0", "1"]), callbacks=[Shrink()])
    assert gap_warnings(told.fit, 4, lr=0.02) == []


def test_measuring_changes_nothing(monkeypatch) -> None:
    def trained(look: bool) -> Learner:
        if not look:
            monkeypatch.setattr(
                "flambeau.training.norm.bn_gap.check_train_eval_gap", lambda run: None
            )
        told = learner(
            net(drop=0.3), training=TrainingOptions(average=EMA(0.9), transforms=(draw,))
        )
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        told.fit(3, lr=0.02)
        return told

    def draw(batch, seed):
        random.random()
        np.random.random()
        return batch

    looked, left = trained(True), trained(False)
    assert list(looked.history.step_losses) == list(left.history.step_losses)
    for (name, one), other in zip(
        looked.model.state_dict().items(), left.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name


def test_a_custom_step_without_the_loss_of_the_task() -> None:
    class Nothing(Classification):
        def loss(self, outputs, batch):
            raise RuntimeError("this task has no loss")

        def evaluate(self, model, batches, context):
            return {"loss": 0.0}

    def own_step(model, micro_batches, task, step):
        [batch] = micro_batches
        loss = nn.functional.cross_entropy(model(batch.input), batch.target)
        step.backward(loss)
        step.update(loss)
        return StepResult(loss.detach(), 1.0)

    told = learner(
        net(momentum=0.0),
        task=Nothing(["0", "1"]),
        training=TrainingOptions(train_step=own_step),
    )
    assert gap_warnings(told.fit, 4, lr=0.02) == []
