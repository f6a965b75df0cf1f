"""What users of other libraries try first: the message says what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import TensorDataset

from flambeau import EarlyStopping, Learner, TensorData, TrainingOptions
from flambeau.errors import FlambeauError

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 2
PARTS = "train, valid, test, calibration"


def learner(outputs: int = 2) -> Learner:
    return Learner(TensorData.from_tensors(X, Y), nn.Linear(3, outputs), quiet=True)


@pytest.mark.parametrize(
    ("tried", "message"),
    [
        (lambda: learner().evaluate((X, Y)), f"by its name, not by a tuple. The parts are {PARTS}"),
        (lambda: learner().evaluate(TensorData.from_tensors(X, Y)), "not by a TensorData"),
        (lambda: learner().evaluate("test"), r"test=0\.2; or give test samples of their own"),
        (
            lambda: TensorData.from_datasets(TensorDataset(X, Y), valid=0.2),
            r"valid=0\.2 is a size.*random_split\(data_set, \[0\.8, 0\.2\]\)",
        ),
        (
            lambda: learner().fit(2, schedules={"lr": partial(StepLR, step_size=1)}),
            r"torch_schedule\(lambda optimizer",
        ),
        (lambda: learner().fit(2, schedule=partial(StepLR, step_size=1)), "torch_schedule"),
        (lambda: learner().fit(steps=0), "steps is 0, .* a whole number of steps, at least 1"),
        (lambda: learner().fit(1, evaluate_every=0), "between two evaluations, at least 1"),
        (lambda: learner(1).fit(1), r"1 column, but .*one logit .*task='multi_label'"),
        (
            lambda: TrainingOptions(keep_best=True),
            'keep_best is True; give the column .*keep_best="valid_loss"',
        ),
        (
            lambda: Learner(TensorData.from_tensors(X, Y), callbacks=EarlyStopping()),
            r"give a list: callbacks=\[EarlyStopping\(…\)\]",
        ),
    ],
)
def test_a_first_try_is_answered(tried: Callable[[], object], message: str) -> None:
    with pytest.raises(FlambeauError, match=message) as raised:
        tried()
    assert len(str(raised.value)) < 600  # no printed tensors


def test_one_logit_with_binary_cross_entropy_is_multi_label() -> None:
    """The way that the message names: the loss is that of torch."""
    data = TensorData.from_tensors(X, Y.float()[:, None], task="multi_label")
    run = Learner(data, nn.Linear(3, 1), quiet=True)
    run.fit(1)
    rows = torch.as_tensor(data.split.valid)
    logits = run.model.eval()(X[rows]).detach()
    expected = nn.functional.binary_cross_entropy_with_logits(logits, Y[rows, None].float())
    assert run.evaluate()["loss"] == pytest.approx(float(expected), abs=1e-6)
