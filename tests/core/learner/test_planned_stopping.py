"""Clipping and early stopping as choices of the plan."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Callback, EarlyStopping, Learner, Plan, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, PlanError

FAST: dict[str, Any] = {"probe": "off", "bn": "train", "epochs": 12, "batch_size": 32, "lr": 0.05}


def data(**parts: Any) -> TensorData:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=draws)
    y = torch.randint(2, (200,), generator=draws)  # nothing to learn, so a fit soon overfits
    return TensorData.from_tensors(x, y, valid=0.5, **parts)


def learner(choices: dict[str, Any], *callbacks: Callback, **training: Any) -> Learner:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    options = TrainingOptions(doctor=False, **training)
    return Learner(data(), model, choices=FAST | choices, callbacks=callbacks, training=options)


def weights(one: Learner) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for each in one.model.parameters()])


def test_patience_ends_the_run_like_the_callback() -> None:
    planned = learner({"patience": 2, "keep_best": "valid_loss"})
    planned.fit()
    called = learner({"keep_best": "valid_loss"}, EarlyStopping(patience=2, restore_best=False))
    called.fit()
    assert 3 <= len(planned.history.rows) == len(called.history.rows) < 12
    assert torch.equal(weights(planned), weights(called))
    # Without keep_best the validation loss decides, and the weights are the last ones.
    last = learner({"patience": 2})
    last.fit()
    assert len(last.history.rows) == len(planned.history.rows)
    assert not torch.equal(weights(last), weights(planned))
    # The plan is JSON, and repeats the run.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    saved = Plan.from_json(json.loads(json.dumps(planned.plan.to_json())))
    again = Learner(data(), model, plan=saved, training=TrainingOptions(doctor=False))
    again.fit()
    assert torch.equal(weights(again), weights(planned))


def test_a_callback_of_the_user_replaces_the_patience_of_the_plan() -> None:
    one = learner({"patience": 1}, EarlyStopping(patience=100))
    one.fit()
    assert len(one.history.rows) == 12


def test_clip_norm_of_the_plan_clips_like_the_option() -> None:
    ends = []
    for choices, training in (
        ({"clip_norm": 0.1}, {}),
        ({}, {"clip_norm": 0.1}),
        ({"clip_norm": None}, {}),
    ):
        # SGD: the steps of AdamW hardly depend on the size of the gradients.
        one = learner({"optimizer": "sgd", **choices}, **training)
        assert one.plan["clip_norm"].value == (choices | training).get("clip_norm")
        one.fit()
        ends.append(weights(one))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"patience": 0}, "a whole number of evaluations without improvement"),
        ({"patience": 2.5}, "a whole number of evaluations without improvement"),
        ({"clip_norm": 0}, "None or a finite norm above 0"),
        ({"clip_norm": True}, "None or a finite norm above 0"),
    ],
)
def test_invalid_values_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        learner(choices)


def test_two_different_values_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"clip_norm is 1\.0 in choices and 2\.0 in"):
        learner({"clip_norm": 1.0}, clip_norm=2.0)


def test_patience_needs_validation_rows() -> None:
    x = torch.randn(40, 4)
    whole = TensorData.from_tensors(x, torch.arange(40) % 2, valid=0)
    with pytest.raises(PlanError, match="there are no validation rows on which a run could stop"):
        Learner(whole, choices={"patience": 3})
