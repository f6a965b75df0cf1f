"""The replay names the first thing that is not finite, and leaves everything as it was."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import NonFiniteError
from flambeau.task.task import StepContext, Task
from flambeau.training.nonfinite.guard import StepRecord
from flambeau.training.nonfinite.locate import (
    NonFiniteSource,
    find_nonfinite_source,
    nonfinite_error,
)


class Mean(Task):
    """The mean of ``function(outputs)``."""

    def __init__(self, function: Callable[[Tensor], Tensor] = torch.square) -> None:
        self._function = function

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        return self._function(outputs).sum(), float(len(batch))


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


def batch_of(x: Tensor) -> Batch:
    return Batch({"x": x}, indices=torch.arange(len(x)) + 100)


def inputs(rows: int = 4) -> Tensor:
    return torch.rand(rows, 3, generator=torch.Generator().manual_seed(0)) + 0.5


def net(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), *middle, nn.Linear(3, 2))


def find(
    model: nn.Module, batch: Batch, task: Task | None = None, **options: Any
) -> NonFiniteSource:
    return find_nonfinite_source(model, task or Mean(), [batch], StepContext(), **options)


def test_bad_inputs_name_the_samples() -> None:
    x = inputs()
    x[1, 2] = float("nan")
    x[3, 0] = float("inf")
    source = find(net(), batch_of(x))
    assert source.kind == "input"
    assert "'x'" in source.description
    assert source.samples == (101, 103)


def test_bad_targets() -> None:
    batch = batch_of(inputs())
    batch.targets = {"price": torch.tensor([1.0, 2.0, float("nan"), 4.0])}
    source = find(net(), batch)
    assert (source.kind, source.samples) == ("input", (102,))
    assert "target 'price'" in source.description


def test_the_second_micro_batch() -> None:
    x = inputs()
    x[0, 0] = float("nan")
    source = find_nonfinite_source(net(), Mean(), [batch_of(inputs()), batch_of(x)], StepContext())
    assert source.samples == (100,)


def test_bad_parameters() -> None:
    model = net()
    with torch.no_grad():
        model[1].bias[0] = float("nan")
    assert (
        find(model, batch_of(inputs())).description
        == "the parameter '1.bias' was not finite before the step"
    )


def test_the_first_layer_whose_output_is_bad() -> None:
    model = net(nn.Sequential(nn.Tanh(), Apply(lambda x: torch.log(x - x.detach()))), nn.ReLU())
    source = find(model, batch_of(inputs()))
    assert source.kind == "output"
    assert source.description == "the output of '1.1' (Apply)"
    assert source.samples == (100, 101, 102, 103)


def test_only_the_samples_that_are_bad() -> None:
    def poison(x: Tensor) -> Tensor:
        return torch.where((torch.arange(len(x)) == 2)[:, None], x / 0.0, x)

    source = find(net(Apply(poison)), batch_of(inputs()))
    assert source.samples == (102,)


def test_a_bad_loss() -> None:
    source = find(net(), batch_of(inputs()), Mean(lambda outputs: (-outputs.abs()).log()))
    assert source.kind == "loss"


class Weightless(Mean):
    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        return outputs.sum(), torch.tensor(0.0)


def test_a_loss_with_zero_weight() -> None:
    source = find(net(), batch_of(inputs()), Weightless())
    assert source.kind == "no target"
    assert "divided by the weight 0" in source.description


def root_of_zero(x: Tensor) -> Tensor:
    return x + torch.sqrt(x * 0.0)


def test_a_layer_with_a_bad_gradient() -> None:
    source = find(net(nn.Tanh(), Apply(root_of_zero), nn.Tanh()), batch_of(inputs()))
    assert source.kind == "gradient"
    assert source.description == "the gradient that '2' (Apply) computes for its input"


def test_a_bad_gradient_after_an_in_place_layer() -> None:
    model = net(nn.ReLU(inplace=True), Apply(root_of_zero))
    assert find(model, batch_of(inputs())).description == (
        "the gradient that '2' (Apply) computes for its input"
    )


def test_a_loss_with_a_bad_gradient() -> None:
    source = find(net(), batch_of(inputs()), Mean(root_of_zero))
    assert source.kind == "gradient"
    assert "the loss, or code before it, computes for '1' (Linear)" in source.description


class RootOfParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scale.sqrt()


def test_a_parameter_with_a_bad_gradient() -> None:
    source = find(RootOfParameter(), batch_of(inputs()))
    assert source.description == "the gradient of the parameter 'scale'"


def test_a_step_that_is_finite_when_repeated() -> None:
    assert find(net(), batch_of(inputs())).kind == "unknown"


def test_dropout_draws_as_in_the_step() -> None:
    # Sample 101 fails only where dropout leaves its first number.
    def poison(x: Tensor) -> Tensor:
        row = (torch.arange(len(x)) == 1)[:, None] & (x != 0)
        return torch.where(row, x / 0.0, x)

    model = nn.Sequential(nn.Dropout(0.5), Apply(poison), nn.Linear(1, 1))
    batch = batch_of(torch.ones(2, 1))
    kinds = set()
    for seed in range(8):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        bad = not torch.isfinite(model(batch.input)).all()
        record = StepRecord(0, 0, 0, (batch.indices,), state, None)
        torch.rand(3)
        kind = find(model, batch, record=record).kind
        assert (kind == "output") == bad
        kinds.add(kind)
    assert kinds == {"output", "unknown"}


def test_model_and_gradients_are_restored() -> None:
    model = net(nn.BatchNorm1d(3), nn.Dropout(0.5), Apply(root_of_zero))
    model(inputs()).sum().backward()
    torch.manual_seed(5)
    before = [t.clone() for t in (*model.state_dict().values(), torch.get_rng_state())]
    gradients = [p.grad.clone() for p in model.parameters()]
    assert find(model, batch_of(inputs())).kind == "gradient"
    after = [*model.state_dict().values(), torch.get_rng_state()]
    assert all(map(torch.equal, before, after))
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad.nan_to_num(7.0), gradient.nan_to_num(7.0))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_message() -> None:
    record = StepRecord(12, 1, 2, (torch.tensor([7, 8]), None), torch.get_rng_state(), None)
    error = nonfinite_error(record, NonFiniteSource("output", "the output of '3' (Linear)", (8,)))
    assert isinstance(error, NonFiniteError)
    assert str(error).startswith(
        "Step 12 (step 2 of epoch 2) is not finite: the output of '3' (Linear). Samples: 8. "
        "The model has the weights from before that step. If earlier steps were finite, lower lr or"
    )


@pytest.mark.parametrize("kind", ["input", "parameter", "output", "loss", "gradient", "unknown"])
def test_every_kind_has_advice_and_few_samples_are_named(kind: str) -> None:
    record = StepRecord(0, 0, 0, (torch.arange(30),), torch.get_rng_state(), None)
    text = str(nonfinite_error(record, NonFiniteSource(kind, "something")))
    assert "Samples of the step: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 20 more." in text
    assert len(text.split("before that step. ")[1]) > 20
