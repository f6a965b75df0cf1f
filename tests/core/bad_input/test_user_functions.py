"""Functions and objects of the user that cannot be called as the library calls them."""

from __future__ import annotations

from collections.abc import Callable as Function
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR

from flambeau import (
    Callback,
    Classification,
    FlambeauError,
    Learner,
    Phase,
    Schedule,
    TensorData,
    TrainingOptions,
)
from flambeau.errors import ArgumentError, StorageError, TrainingError
from flambeau.training import train_step

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
DATA = TensorData.from_tensors(X, (X[:, 0] > 0).long())


def make(**arguments: Any) -> Learner:
    return Learner(DATA, nn.Linear(3, 2), quiet=True, **arguments)


def options(**arguments: Any) -> Learner:
    return make(training=TrainingOptions(**arguments))


class NoState(Callback):
    def on_step_end(self) -> None:  # type: ignore[override]
        """Lacks the argument ``state``."""


class OneArgument(Classification):
    def loss(self, outputs: Tensor) -> Any:  # type: ignore[override]
        return outputs.sum(), 1.0


class WrongKey(Classification):
    def loss(self, outputs: Tensor, batch: Any) -> Any:
        return outputs.sum() + batch.targets["label"].sum(), 1.0


def scheduler() -> StepLR:
    return StepLR(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), 1)


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda: options(train_step=lambda model, batch: None), "called with (model, micro_b"),
        (lambda: options(optimizer=lambda model: None), "called with (model, values)"),
        (lambda: options(transforms=(lambda batch: batch,)), "called with (batch, seed)"),
        (lambda: options(controllers=(scheduler(),)), "has no method update(history, progress)"),
        (lambda: make(callbacks=[NoState()]).fit(1), "NoState.on_step_end is called with (state)"),
        (lambda: make(task=OneArgument(["a", "b"])).fit(1), "called with (outputs, batch)"),
        (lambda: Classification(["a", "b"], metrics={"f": lambda outputs: 1.0}), "(outputs, targ"),
        (lambda: make().fit(1, schedules={"lr": scheduler()}), "torch_schedule"),
        (lambda: make().fit(1, schedules=Schedule("cosine")), "give schedules by the name"),
        (lambda: make().fit_phases([]), "phases is []"),
        (lambda: make().fit_phases([Phase(1, {"lr": 0.1})]), "The schedule of 'lr' is 0.1"),
        (lambda: make(training=torch.optim.Adam), "give TrainingOptions("),
        (lambda: make(clip_norm=1.0), "training=TrainingOptions(clip_norm=…)"),
        (lambda: TrainingOptions(clip=1.0), "Did you mean 'clip_norm'?"),
    ],
)
def test_a_wrong_function_or_argument_is_explained(fit: Function[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        fit()
    assert message in str(caught.value)


def test_an_optimizer_factory_that_reads_an_unknown_key() -> None:
    def factory(model: nn.Module, values: Any) -> Any:
        return {"main": torch.optim.SGD(model.parameters(), lr=values["learning_rate"])}

    with pytest.raises(ArgumentError, match=r"values\['learning_rate'\].*Did you mean 'lr'"):
        options(optimizer=factory).fit(1)


def test_an_error_in_the_loss_names_what_the_batch_contains() -> None:
    with pytest.raises(TrainingError) as caught:
        make(task=WrongKey(["a", "b"])).fit(1)
    assert "WrongKey.loss failed in line" in str(caught.value)
    assert "KeyError: 'label'" in str(caught.value)
    assert "batch.targets['target']" in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_in_a_metric_function_shows_the_shapes() -> None:
    def difference(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).mean()

    with pytest.raises(ArgumentError, match=r"'difference' failed.*\(8, 2\).*\(8,\)"):
        make(task=Classification(["a", "b"], metrics={"difference": difference})).fit(1)


def test_an_update_needs_gradients_only_of_what_is_trained() -> None:
    """Frozen parameters have no gradients, so an update without any is right for them."""
    model = nn.ModuleDict(
        {"used": nn.Linear(3, 2), "frozen": nn.Linear(3, 2).requires_grad_(False)}
    )

    def step(model: Any, micro_batches: Any, task: Any, step: Any) -> Tensor:
        [batch] = micro_batches
        loss = nn.functional.cross_entropy(model["used"](batch.input), batch.target)
        step.backward(loss)
        step.update(loss, "used")
        step.update(loss, "frozen")
        return loss.detach()

    def factory(model: Any, values: Any) -> Any:
        return {
            name: torch.optim.SGD(part.parameters(), lr=values["lr"])
            for name, part in model.items()
        }

    training = TrainingOptions(train_step=step, optimizer=factory, doctor=False)
    task = ForUsed(["a", "b"])
    history = Learner(DATA, model, task=task, training=training, quiet=True).fit(1, lr=0.1)
    assert len(history.rows) == 1


class ForUsed(Classification):
    def forward(self, model: Any, batch: Any, context: Any) -> Tensor:
        return model["used"](batch.input)


def test_weights_are_not_written_to_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is a folder"):
        make().save(tmp_path)


def test_the_default_train_step_is_the_function_of_the_library() -> None:
    assert TrainingOptions.train_step is TrainingOptions().train_step is train_step


def test_every_error_here_is_one_of_flambeau() -> None:
    assert issubclass(ArgumentError, FlambeauError)
    assert issubclass(ArgumentError, TypeError)
