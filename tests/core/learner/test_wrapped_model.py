"""Wrapped models, NumPy scalars as choices, and unknown parameter groups."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flambeau import Learner, TensorData
from flambeau.errors import ArgumentError, FlambeauWarning, PlanError

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
DATA = TensorData.from_tensors(X, (X[:, 0] > 0).long(), valid=8)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def learner(model: nn.Module, **choices: Any) -> Learner:
    settings = {"device": "cpu", "probe": "off", "bn": "train", **choices}
    return Learner(DATA, model, choices=settings, quiet=True)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_compiled_model_keeps_names_and_groups(depth: int) -> None:
    inner = net()
    model: Any = torch.compile(inner, backend="eager")
    if depth == 2:
        with pytest.warns(FlambeauWarning, match=r"\[wrapper-removed\] .* DataParallel"):
            one = learner(nn.DataParallel(model))
    else:
        one = learner(model)
    assert one.model is inner
    assert one.plan["compile"].value == "whole"
    assert one.plan["architecture"].value == "Sequential"
    assert learner(torch.compile(net(), backend="eager"), compile="off").plan["compile"].value == (
        "off"
    )


def test_data_parallel_is_unwrapped_for_names_groups_and_training() -> None:
    inner, plain = net(), net()
    with pytest.warns(FlambeauWarning, match=r"\[wrapper-removed\] .* flambeau launch"):
        one = learner(nn.DataParallel(inner))
    one.fine_tune(1, lr=0.01)
    learner(plain).fine_tune(1, lr=0.01)
    assert list(one.model.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(one.model.state_dict(), plain.state_dict())


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("lr", np.float64(0.01), 0.01),
        ("lr", np.logspace(-2, -1, 2)[0], 0.01),
        ("batch_size", np.int64(8), 8),
        ("strict", np.False_, False),
    ],
)
def test_a_numpy_scalar_is_accepted_as_a_choice(key: str, value: Any, expected: Any) -> None:
    one = learner(net(), **{key: value})
    assert one.plan[key].value == expected
    assert type(one.plan[key].value) is type(expected)


def test_a_numpy_scalar_is_accepted_by_fit_and_a_bad_one_refused() -> None:
    one = learner(net())
    one.fit(np.int64(1), lr=np.float32(0.5))
    assert one.plan["lr"].value == 0.5
    with pytest.raises(PlanError, match=r"lr is -1\.0, but"):
        learner(net(), lr=np.float64(-1))


def test_an_unknown_group_is_refused_at_once() -> None:
    with pytest.raises(ArgumentError, match="no parameter group 'heat'"):
        learner(net(), trainable=["heat"])
    assert learner(net(), trainable=["2"]).plan["trainable"].value == ["2"]
