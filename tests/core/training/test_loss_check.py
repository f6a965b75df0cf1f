"""The weight that ``loss`` returns counts; promises and means are checked before the first step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau import Batch, Learner, Task, TensorData, TrainingOptions
from flambeau.data.split import Split
from flambeau.errors import ArgumentError, FlambeauWarning, InputError
from flambeau.training.state import StepResult

N = 16
X = torch.randn(N + 8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = X.sum(1, keepdim=True)


class Tokens(Task):
    """Counts each sample as many times as its first input says."""

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Any]:
        n = self.tokens(batch)
        return ((outputs - batch.target).square()[:, 0] * n).sum(), n.sum()

    @staticmethod
    def tokens(batch: Batch) -> Tensor:
        return 10 + (batch.input[:, 0] * 3).abs().long()


def learner(task: Task, batch_size: int = N, accumulate: int = 1, **options: Any) -> Learner:
    torch.manual_seed(0)
    data = TensorData.from_tensors(X[:N], Y[:N], valid=(X[N:], Y[N:]))

    def sgd(model: nn.Module, values: Any) -> dict[str, Any]:
        return {"main": torch.optim.SGD(model.parameters(), lr=values["lr"])}

    return Learner(
        data,
        nn.Linear(3, 1).double(),
        task=task,
        choices={"batch_size": batch_size, "lr": 0.1, "normalisation": "none"},
        training=TrainingOptions(optimizer=sgd, accumulate=accumulate, doctor=False, **options),
        quiet=True,
    )


def by_hand(epochs: int) -> tuple[nn.Module, list[float]]:
    """The mean over tokens, from one batch of all samples."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    n = Tokens.tokens(Batch({"x": X[:N]}))
    losses = []
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = ((model(X[:N]) - Y[:N]).square()[:, 0] * n).sum() / n.sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


class Float(Tokens):
    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Any]:
        total, weight = super().loss(outputs, batch)
        return total, float(weight)


class Promised(Tokens):
    def host_weight(self, batch: Batch) -> float:
        return float(self.tokens(batch).sum())


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("task", [Tokens(), Float(), Promised()])
def test_the_weight_of_the_loss_divides_the_step(task: Task, accumulate: int) -> None:
    run = learner(task, N // accumulate, accumulate)
    run.fit(5, schedule="constant")
    model, losses = by_hand(5)
    assert list(run.history.step_losses) == pytest.approx(losses, rel=1e-12)
    for ours, theirs in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


class Samples(Promised):
    def host_weight(self, batch: Batch) -> float:
        return float(len(batch))


class Inherits(Samples):
    """The inherited promise was made for another loss, so there is none."""

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Any]:
        return super().loss(outputs, batch)


def test_a_broken_promise_is_refused_with_both_numbers() -> None:
    returned = float(Tokens.tokens(Batch({"x": X[:N]}))[:4].sum())
    with pytest.raises(InputError, match=r"Samples\.host_weight returns the weight 4 .* returns"):
        learner(Samples()).fit(1)
    assert 40 < returned < 80
    assert Inherits().host_weight(Batch({"x": X})) is None
    learner(Inherits()).fit(1)


class Mean(Task):
    def loss(self, outputs: Tensor, batch: Batch) -> Any:
        return F.mse_loss(outputs, batch.target), float(len(batch))


class Bare(Task):
    def loss(self, outputs: Tensor, batch: Batch) -> Any:
        return F.mse_loss(outputs, batch.target)


class PerSample(Task):
    def loss(self, outputs: Tensor, batch: Batch) -> Any:
        return F.mse_loss(outputs, batch.target, reduction="sum"), torch.ones(len(batch))


class NotReduced(Task):
    def loss(self, outputs: Tensor, batch: Batch) -> Any:
        return F.mse_loss(outputs, batch.target, reduction="none")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            Mean(),
            r"Mean\.loss returned .* with the weight 4, but .* is the mean over its 4 samples",
        ),
        (Bare(), r"Bare\.loss returned one number instead of two"),
        (PerSample(), r"PerSample\.loss returned a tensor \(4,\) as weight.*return their sum"),
        (NotReduced(), r"NotReduced\.loss returned a tensor \(4, 1\) instead of two"),
    ],
)
def test_means_and_unreduced_losses_are_named(task: Task, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learner(task).fit(1)


class EachBatchCountsOnce(Task):
    def loss(self, outputs: Tensor, batch: Batch) -> Any:
        return F.mse_loss(outputs, batch.target), 1.0


class Contrastive(Task):
    """Not a sum over samples: nothing is certain."""

    def loss(self, outputs: Tensor, batch: Batch) -> Any:
        return torch.cdist(outputs, batch.target).logsumexp(1).sum(), float(len(batch))


@pytest.mark.parametrize("task", [EachBatchCountsOnce(), Contrastive()])
def test_other_losses_raise_no_false_alarm(task: Task) -> None:
    learner(task).fit(1)


def test_the_check_leaves_the_run_unchanged() -> None:
    """With batch norm and dropout in the model, the check changes neither buffers nor draws."""
    found = []
    for task in (Tokens(), Promised()):
        torch.manual_seed(0)
        data = TensorData.from_tensors(X[:N].float(), Y[:N].float(), valid=(X[N:], Y[N:]))
        model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
        calls: list[int] = []
        model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        run = Learner(data, model, task=task, choices={"lr": 0.01, "bn": "train"}, quiet=True)
        run.training = TrainingOptions(doctor=False)
        run.fit(1)
        found.append(list(run.history.step_losses))
        run.fit(1)
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_the_loss_of_the_checked_batch_is_computed_once() -> None:
    sizes: list[int] = []

    class Counts(Tokens):
        def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Any]:
            sizes.append(len(batch))
            return super().loss(outputs, batch)

    learner(Counts(), batch_size=N).fit(1)
    steps = sizes.index(N) if N in sizes else len(sizes)
    assert sizes[:steps] == [4, 1, 1, 1, 1]


class Unweighted(Task):
    """A loss that ignores the sample weights."""

    def loss(self, outputs: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, float]:
        return nn.functional.cross_entropy(outputs, batch.target, reduction="sum"), len(batch)


class WeightOnly(Unweighted):
    """Only the weight of the loss is weighted, not the loss."""

    def loss(self, outputs: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, float]:
        assert batch.sample_weight is not None
        return super().loss(outputs, batch)[0], batch.sample_weight.sum()


class Weighted(Unweighted):
    """A loss that uses the weights."""

    def loss(self, outputs: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        assert batch.sample_weight is not None
        losses = nn.functional.cross_entropy(outputs, batch.target, reduction="none")
        return (losses * batch.sample_weight).sum(), batch.sample_weight.sum()


class OnPurpose(Unweighted):
    ignores_sample_weight = True


def fit_weighted(task: Task) -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0] * 8)
    split = Split.from_indices(range(32), range(32, 40))
    data = TensorData.from_tensors(x, torch.arange(40) % 2, sample_weight=weights, split=split)
    choices = {"epochs": 1, "batch_size": 32}
    Learner(data, nn.Linear(3, 2), task=task, choices=choices, quiet=True).fit()


@pytest.mark.parametrize("task", [Unweighted(), WeightOnly()])
def test_a_loss_that_ignores_sample_weights_is_refused(task: Task) -> None:
    with pytest.raises(InputError, match=r"loss does not use batch.sample_weight.*ignores_sample"):
        fit_weighted(task)


@pytest.mark.parametrize("task", [Weighted(), OnPurpose()])
def test_a_loss_may_use_or_decline_the_weights(task: Task) -> None:
    fit_weighted(task)


class Negative(Unweighted):
    def loss(self, outputs: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, float]:
        return super().loss(outputs, batch)[0], -float(len(batch))


class Detached(Unweighted):
    def loss(self, outputs: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, float]:
        return super().loss(outputs.detach(), batch)


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        (Negative(), InputError, r"returned the weight -4, but it must be finite"),
        (Detached(), ArgumentError, r"The loss has no gradient.*detached outputs"),
    ],
)
def test_losses_that_cannot_train_are_named(
    task: Task, error: type[Exception], message: str
) -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    data = TensorData.from_tensors(x, torch.arange(40) % 2, valid=0.2)
    with pytest.raises(error, match=message):
        Learner(
            data, nn.Linear(3, 2), task=task, training=TrainingOptions(doctor=False), quiet=True
        ).fit(1)


class TwoHeads(nn.Module):
    """Returns two outputs in some structure."""

    def __init__(self, structure: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 1).double(), nn.Linear(3, 1).double()
        self.structure = structure

    def forward(self, x: Tensor) -> Any:
        return self.structure(self.a(x), self.b(x))


class ModelOutput(OrderedDict[str, Tensor]):
    """Entries that are attributes too, as those of transformers."""

    def __setitem__(self, key: str, value: Tensor) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)


def model_output(a: Tensor, b: Tensor) -> ModelOutput:
    made = ModelOutput()
    made["a"], made["b"] = a, b
    return made


class Heads(Task):
    def __init__(self, heads: Callable[[Any], tuple[Tensor, Tensor]], reduction: str) -> None:
        self.heads, self.reduction = heads, reduction

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        losses = [F.mse_loss(each, batch.target, reduction="none") for each in self.heads(outputs)]
        total = torch.stack(losses).sum(0)
        return (total.mean() if self.reduction == "mean" else total.sum()), float(len(batch))


def attributes(outputs: Any) -> tuple[Tensor, Tensor]:
    return outputs.a, outputs.b


STRUCTURES: list[tuple[Any, Any]] = [
    (lambda a, b: (a, b), lambda o: o),
    (lambda a, b: {"a": a, "b": [b]}, lambda o: (o["a"], o["b"][0])),
    (lambda a, b: SimpleNamespace(a=a, b=b), attributes),
    (model_output, attributes),
]


@pytest.mark.parametrize(("structure", "heads"), STRUCTURES)
def test_means_of_several_outputs_are_named(structure: Any, heads: Any) -> None:
    def run(reduction: str) -> None:
        made = learner(Heads(heads, reduction))
        data = made.data
        choices = {"batch_size": N, "probe": "off"}
        options = TrainingOptions(doctor=False)
        Learner(
            data,
            TwoHeads(structure),
            task=Heads(heads, reduction),
            choices=choices,
            training=options,
            quiet=True,
        ).fit(1, lr=0.01)

    run("sum")
    with pytest.raises(InputError, match="is the mean over its 4 samples"):
        run("mean")


class OwnLosses(Task):
    loss_factors: ClassVar[dict[str, float]] = {"a": 1.0, "b": 0.5}

    def losses(self, outputs: Any, batch: Batch) -> dict[str, tuple[Tensor, float]]:
        n = float(len(batch))
        return {
            "a": (F.mse_loss(outputs, batch.target, reduction="sum"), n),
            "b": (F.l1_loss(outputs, batch.target), n),
        }


class SumWithoutWeight(Task):
    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        return F.mse_loss(outputs, batch.target, reduction="sum"), 1.0


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (OwnLosses(), r"OwnLosses.losses\['b'\] returned .* is the mean over its 4 samples"),
        (SumWithoutWeight(), "the sum over its 4 samples, with the weight 1, and the same weight"),
    ],
)
def test_other_wrong_weights_are_named(task: Task, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learner(task).fit(1)


class Squares(Task):
    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        return F.mse_loss(outputs, batch.target, reduction="sum"), float(len(batch))


class MeanSquares(Task):
    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        return F.mse_loss(outputs, batch.target), float(len(batch))


def step_with(divide: bool, returned: str) -> Any:
    def train_step(model: nn.Module, micro_batches: Any, task: Any, step: Any) -> Any:
        [batch] = micro_batches
        total, weight = task.loss(task.forward(model, batch, step.context), batch)
        step.backward(total, weight if divide else 1.0)
        step.update(total)
        loss = total if returned == "sum" else total / weight
        return loss if returned != "result" else StepResult(total.detach(), weight)

    return train_step


def test_a_train_step_that_returns_the_sum_is_refused() -> None:
    for returned in ("sum", "result"):
        with pytest.raises(ArgumentError, match=r"the sum of the losses with the weight 16, but"):
            learner(Squares(), train_step=step_with(True, returned)).fit(1)


def test_a_train_step_that_uses_the_sum_is_reported() -> None:
    with pytest.warns(FlambeauWarning, match=r"\[summed-loss\].* 16 times as long"):
        learner(Squares(), train_step=step_with(False, "mean")).fit(1)


def test_a_train_step_with_the_mean_gets_no_warning() -> None:
    own = learner(Squares(), train_step=step_with(True, "mean"))
    usual = learner(Squares())
    own.fit(2)
    usual.fit(2)
    assert own.history.column("train_loss") == pytest.approx(usual.history.column("train_loss"))


def test_the_task_of_a_train_step_is_checked_where_it_scores() -> None:
    with pytest.raises(InputError, match=r"MeanSquares.loss .* is the mean over its 4 samples"):
        learner(MeanSquares(), train_step=step_with(True, "mean")).fit(1)
