"""``CustomLoss``: a function that returns the loss of each sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import Learner, TensorData
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError
from flambeau.task import CustomLoss

X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = (X @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))[:, None]


def squared(outputs: Tensor, batch: Batch) -> Tensor:
    return (outputs - batch.target).square()[:, 0]


def learner(loss: Any = squared, **options: Any) -> Learner:
    torch.manual_seed(1)
    data = TensorData.from_tensors(X, Y, valid=0, **options)
    choices = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "batch_size": 60}
    model = nn.Linear(3, 1).double()
    return Learner(data, model, task=CustomLoss(loss), choices=choices, quiet=True)


def gradient_step(weights: Tensor | None = None) -> Tensor:
    """The weights of the layer after one step of 0.1 on the weighted mean, by hand."""
    torch.manual_seed(1)
    model = nn.Linear(3, 1).double()
    each = (model(X) - Y).square()[:, 0]
    mean = each.mean() if weights is None else (each * weights).sum() / weights.sum()
    mean.backward()
    assert model.weight.grad is not None
    return model.weight.detach() - 0.1 * model.weight.grad


@pytest.mark.parametrize("weighted", [False, True])
def test_the_mean_is_minimised(weighted: bool) -> None:
    weights = torch.arange(60, dtype=torch.float64) if weighted else None
    made = learner(sample_weight=weights) if weighted else learner()
    made.fit(1, lr=0.1, schedule="constant")
    assert isinstance(made.model, nn.Linear)
    np.testing.assert_allclose(made.model.weight.detach(), gradient_step(weights), rtol=1e-12)


def test_elements_are_averaged_over_samples_and_positions() -> None:
    made = learner(lambda outputs, batch: (outputs - batch.target).square().expand(-1, 4))
    made.fit(1, lr=0.1, schedule="constant")
    assert isinstance(made.model, nn.Linear)
    np.testing.assert_allclose(made.model.weight.detach(), gradient_step(), rtol=1e-12)


def test_terms_are_added_and_logged() -> None:
    def terms(outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"error": squared(outputs, batch), "size": 0.5 * outputs.square()[:, 0]}

    row = learner(terms).fit(1, lr=0.1).rows[-1]
    assert row["train_error"] + row["train_size"] == pytest.approx(row["train_loss"], rel=1e-12)


def test_predictions_are_the_outputs() -> None:
    made = learner()
    made.fit(1, lr=0.1)
    with torch.no_grad():
        wanted = made.model(X[:2])
    torch.testing.assert_close(torch.stack(made.predict(X[:2])), wanted, check_device=False)


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda outputs, batch: (outputs - batch.target).square().mean(), "one number"),
        (lambda outputs, batch: (outputs - batch.target).square()[:5], r"shape \(5, 1\)"),
        (lambda outputs, batch: 3.0, "a float"),
        (lambda outputs, batch: {"error": outputs.mean()}, "one number"),
    ],
)
def test_a_loss_without_one_row_for_each_sample_is_refused(loss: Any, found: str) -> None:
    with pytest.raises(InputError, match=rf"returned {found} for 60 samples\. Return one loss"):
        learner(loss).fit(1, lr=0.1)


@pytest.mark.parametrize("given", ["mse", nn.MSELoss, None])
def test_something_else_than_a_function_is_refused(given: Any) -> None:
    with pytest.raises(ArgumentError, match="pass a function loss"):
        CustomLoss(given)


def test_a_module_as_loss_trains_its_parameters() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, outputs: Tensor, batch: Batch) -> Tensor:
            return squared(outputs * self.scale, batch)

    loss = Scaled()
    learner(loss).fit(1, lr=0.1)
    assert loss.scale.item() != 1.0
