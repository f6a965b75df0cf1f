"""Optimizers of the user's: shared parameters, parameters of no optimizer, missing settings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from flambeau import (
    EMA,
    Batch,
    Callback,
    Classification,
    FlambeauWarning,
    Learner,
    Schedule,
    StepResult,
    Task,
    TensorData,
    TrainingOptions,
)
from flambeau.errors import ArgumentError, InputError
from flambeau.training.optim.precision import Precision

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        return self.a(hidden) + self.b(hidden)


def fit(model: nn.Module, *, task: Task | None = None, how: Any = None, **options: Any) -> Learner:
    """One step of the whole train set."""
    learner = Learner(
        TensorData.from_loaders([(X, Y)], [(X, Y)]),
        model,
        task=task or Classification(["a", "b"]),
        training=TrainingOptions(doctor=False, **options),
        choices={"precision": "fp32", **(how or {})},
        quiet=True,
    )
    learner.fit(1, lr=0.1, schedule="constant")
    return learner


def overlapping(model: nn.Module, values: Mapping[str, Any]) -> dict[str, Optimizer]:
    lr = values["lr"]
    return {
        "a": SGD([*model.body.parameters(), *model.a.parameters()], lr),
        "b": SGD([*model.body.parameters(), *model.b.parameters()], lr),
    }


def loss_of(model: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(model(X), Y)


@pytest.mark.parametrize("clip_norm", [None, 0.01])
def test_a_parameter_of_two_optimizers_is_clipped_once_and_moved_by_both(
    clip_norm: float | None,
) -> None:
    expected = TwoHeads()
    loss_of(expected).backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(expected.parameters(), clip_norm)
    for optimizer in overlapping(expected, {"lr": 0.1}).values():
        optimizer.step()
    model = TwoHeads()
    fit(model, optimizer=overlapping, clip_norm=clip_norm)
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_fp16_divides_the_gradient_of_a_shared_parameter_once() -> None:
    expected, model = TwoHeads(), TwoHeads()
    loss_of(expected).backward()
    precision = Precision("fp16", torch.device("cpu"))
    precision.backward(loss_of(model))
    precision.unscale(overlapping(model, {"lr": 0.1}).values())
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


@pytest.mark.parametrize("growth", [1, 1000])
def test_fp16_gradients_of_the_other_optimizer_follow_a_change_of_the_scale(growth: int) -> None:
    """Both backward passes come first; the scale changes between the two updates."""
    seen: list[Tensor] = []

    class Recording(SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            seen.append(self.param_groups[0]["params"][0].grad.clone())
            super().step()

    class Separate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x)

    def step(model: Any, batches: Sequence[Batch], task: Task, step: Any) -> StepResult:
        [batch] = batches
        scaler: Any = step._precision.scaler
        scaler.set_growth_interval(growth)
        losses = [
            nn.functional.cross_entropy(n(batch.input), batch.target) for n in (model.a, model.b)
        ]
        for loss in losses:
            step.backward(loss)
        for loss, name in zip(losses, "ab", strict=True):
            step.update(loss, name)
        return StepResult(losses[0].detach(), batch.weight)

    def factory(model: Any, values: Any) -> dict[str, Optimizer]:
        return {name: Recording(getattr(model, name).parameters(), 0.1) for name in "ab"}

    expected = Separate()
    for part in (expected.a, expected.b):
        nn.functional.cross_entropy(part(X), Y).backward()
    fit(Separate(), train_step=step, optimizer=factory, how={"precision": "fp16"})
    for mine, part in zip(seen, (expected.a, expected.b), strict=True):
        torch.testing.assert_close(mine, part.weight.grad)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_callbacks_see_gradients_without_the_loss_scale(precision: str) -> None:
    seen: list[Tensor] = []

    class Seen(Callback):
        def on_gradients_ready(self, state: Any) -> None:
            seen.append(state.model.b.bias.grad.clone())

    expected = TwoHeads()
    loss_of(expected).backward()
    Learner(
        TensorData.from_loaders([(X, Y)], [(X, Y)]),
        TwoHeads(),
        task=Classification(["a", "b"]),
        choices={"precision": precision},
        callbacks=[Seen()],
        quiet=True,
    ).fit(1, lr=0.1)
    [gradient] = seen
    torch.testing.assert_close(gradient, expected.b.bias.grad, rtol=0.01, atol=1e-4)


def test_gradients_of_parameters_without_an_optimizer_do_not_add_up() -> None:
    norms: list[float] = []

    class Norms(Callback):
        def on_gradients_ready(self, state: Any) -> None:
            norms.append(float(state.model.body.weight.grad.norm()))

    data = TensorData.from_loaders([(X, Y)] * 4, [(X, Y)])
    Learner(
        data,
        TwoHeads(),
        task=Classification(["a", "b"]),
        training=TrainingOptions(
            doctor=False, optimizer=lambda model, _: {"a": SGD(model.a.parameters(), 1e-9)}
        ),
        callbacks=[Norms()],
        quiet=True,
    ).fit(1)
    assert norms == pytest.approx([norms[0]] * 4)


def test_a_parameter_of_the_task_is_divided_by_a_weight_that_only_the_loss_knows() -> None:
    class Scaled(Classification, nn.Module):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            Classification.__init__(self, ["a", "b"])
            self.scale = nn.Parameter(torch.ones(()))

        def host_weight(self, batch: Batch) -> None:  # type: ignore[override]
            return None

        def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Any]:
            each = nn.functional.cross_entropy(outputs * self.scale, batch.target, reduction="sum")
            return each, torch.tensor(float(len(batch)))

    model, scale = TwoHeads(), torch.ones((), requires_grad=True)
    nn.functional.cross_entropy(model(X) * scale, Y).backward()
    task = Scaled()
    fit(
        model,
        task=task,
        optimizer=lambda m, v: {"main": SGD([*m.parameters(), task.scale], v["lr"])},
    )
    torch.testing.assert_close(task.scale.detach(), 1 - 0.1 * scale.grad)


@pytest.mark.parametrize("name", ["weight_decay", "momentum"])
def test_a_schedule_of_a_setting_that_no_optimizer_has_is_refused(name: str) -> None:
    learner = Learner(
        TensorData.from_loaders([(X, Y)], [(X, Y)]),
        TwoHeads(),
        task=Classification(["a", "b"]),
        training=TrainingOptions(
            doctor=False,
            optimizer=lambda m, v: {"main": torch.optim.Rprop(m.parameters(), v["lr"])},
        ),
        quiet=True,
    )
    with pytest.raises(ArgumentError, match=f"'{name}'.*Rprop has no {name}"):
        learner.fit(1, lr=0.1, schedules={name: Schedule("constant", 0.5)})


def test_momentum_sets_only_the_first_of_three_betas() -> None:
    seen: list[tuple[float, ...]] = []

    class Three(SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            seen.extend(group["betas"] for group in self.param_groups)
            super().step()

    def factory(model: Any, values: Any) -> dict[str, Optimizer]:
        return {
            "main": Three([{"params": list(model.parameters()), "betas": (0.9, 0.8, 0.7)}], 0.1)
        }

    learner = Learner(
        TensorData.from_loaders([(X, Y)], [(X, Y)]),
        TwoHeads(),
        task=Classification(["a", "b"]),
        training=TrainingOptions(doctor=False, optimizer=factory),
        quiet=True,
    )
    learner.fit(1, lr=0.1, schedules={"momentum": Schedule("constant", 0.5)})
    assert seen == [(0.5, 0.8, 0.7)]


@pytest.mark.parametrize("defaults", [{"lr": None}, {"size": 0.25}], ids=["none", "absent"])
def test_an_optimizer_without_lr_keeps_its_own_rate_with_a_warning(defaults: Any) -> None:
    class Fixed(Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, dict(defaults))

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for group in self.param_groups:
                for p in group["params"]:
                    p.sub_(p.grad, alpha=0.25)

    model, expected = TwoHeads(), TwoHeads()
    loss_of(expected).backward()
    with pytest.warns(FlambeauWarning, match=r"\[own-learning-rate\].*Fixed"):
        fit(model, optimizer=lambda m, _: {"main": Fixed(m.parameters())})
    for mine, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs - 0.25 * theirs.grad)


def returning(make: Callable[[Tensor, float], Any]) -> Any:
    def step(model: nn.Module, batches: Sequence[Batch], task: Task, step: Any) -> Any:
        [batch] = batches
        loss = nn.functional.cross_entropy(model(batch.input), batch.target)
        step.backward(loss)
        step.update(loss)
        return make(loss, len(batch))

    return step


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda loss, n: None, "returned a NoneType"),
        (lambda loss, n: loss[None], r"a loss that is a Tensor of shape \(1,\)"),
        (lambda loss, n: StepResult(loss.item(), n), "a loss that is a float"),
        (lambda loss, n: StepResult(loss[None], n), r"a loss that is a Tensor of shape \(1,\)"),
    ],
    ids=["none", "tensor", "float", "vector"],
)
def test_a_train_step_with_another_result_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message + r"\. It must return the mean loss"):
        fit(TwoHeads(), train_step=returning(make))


def test_the_graph_of_a_loss_that_is_not_detached_is_freed() -> None:
    results: list[StepResult] = []

    def make(loss: Tensor, n: float) -> StepResult:
        results.append(StepResult(loss, n))
        return results[-1]

    fit(TwoHeads(), train_step=returning(make))
    assert results[0].loss.grad_fn is None


def test_a_loss_of_several_values_is_refused_by_backward() -> None:
    def step(model: nn.Module, batches: Sequence[Batch], task: Task, step: Any) -> StepResult:
        [batch] = batches
        step.backward(
            nn.functional.cross_entropy(model(batch.input), batch.target, reduction="none")
        )
        raise AssertionError

    with pytest.raises(ArgumentError, match=r"shape \(60,\).*sum or mean"):
        fit(TwoHeads(), train_step=step)


class Complex(nn.Module):
    """A layer with complex weights and a table of integers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 2, dtype=torch.complex64))
        self.table = nn.Parameter(torch.arange(2), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.complex64) @ self.weight).abs() + self.table


def test_complex_and_integer_parameters_train_with_guard_and_average() -> None:
    model, expected = Complex(), Complex()
    loss_of(expected).backward()
    moved = expected.weight.detach() - 0.1 * expected.weight.grad
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(
            model,
            optimizer=lambda m, v: {"main": SGD([m.weight], v["lr"])},
            average=EMA(0.5, warmup=False),
        )
    torch.testing.assert_close(model.weight.detach(), (moved + expected.weight.detach()) / 2)
    assert model.table.tolist() == [0, 1]


def test_a_complex_gradient_that_is_not_finite_is_noticed() -> None:
    from flambeau.torch_internals import non_finite_flagger

    flag, one = torch.zeros(()), torch.ones(())
    values = torch.zeros(3, dtype=torch.complex64)
    non_finite_flagger(torch.device("cpu"))([values], flag, one)
    assert flag == 0
    values[1] = complex(0.0, float("inf"))
    non_finite_flagger(torch.device("cpu"))([values], flag, one)
    assert flag == 1


def test_a_step_without_samples_is_named() -> None:
    batches = [(X[:8], Y[:8]), (X[:0], Y[:0])]
    learner = Learner(
        TensorData.from_loaders(batches, [(X, Y)]),
        TwoHeads(),
        task=Classification(["a", "b"]),
        quiet=True,
    )
    with pytest.raises(InputError, match=r"Step 1 .*has no samples.*collate_fn"):
        learner.fit(1, lr=0.1)


def halves() -> nn.ModuleDict:
    torch.manual_seed(2)
    return nn.ModuleDict({"first": nn.Linear(3, 1), "second": nn.Linear(3, 1)})


def update_both(model: Any, micro_batches: Any, task: Any, step: Any) -> torch.Tensor:
    [batch] = micro_batches
    loss = (model["first"](batch.input) + model["second"](batch.input)).square().mean()
    step.backward(loss)
    step.update(loss)
    return loss


def two_halves(**optimizers: Any) -> Learner:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    options = TrainingOptions(update_both, optimizer=optimizers)
    choices = {"batch_size": 40, "weight_decay": 0.0}
    data = TensorData.from_tensors(x, valid=0)
    return Learner(data, halves(), task=Task(), training=options, choices=choices, quiet=True)


def test_each_submodule_has_the_optimizer_that_is_named_for_it() -> None:
    made = two_halves(first=torch.optim.SGD, second=partial(torch.optim.SGD, lr=0.05))
    made.fit(1, lr=0.1, schedule="constant")
    by_hand = halves()
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    (by_hand["first"](x) + by_hand["second"](x)).square().mean().backward()
    for name, rate in (("first", 0.1), ("second", 0.05)):
        old = by_hand[name]
        assert isinstance(old, nn.Linear)
        assert old.weight.grad is not None
        new = made.model.get_submodule(name).weight
        torch.testing.assert_close(new, old.weight - rate * old.weight.grad)


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [
        ({"frist": torch.optim.SGD}, r"no submodule 'frist'.*Did you mean 'first'"),
        ({"first": torch.optim.SGD}, r"The parameter second\.weight has no optimizer"),
        ({"first": 3}, r"optimizer has 'first': 3\. A mapping has an optimizer class"),
        ({}, "optimizer is an empty mapping"),
    ],
)
def test_what_a_mapping_leaves_open_is_refused(optimizers: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        two_halves(**optimizers).fit(1, lr=0.1)


def test_a_loss_that_a_step_returns_has_the_weight_of_its_batches() -> None:
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    seen: list[tuple[float, int]] = []

    def step_of(model: Any, micro_batches: Any, task: Any, step: Any) -> torch.Tensor:
        loss = update_both(model, micro_batches, task, step)
        seen.append((loss.item(), len(micro_batches[0])))
        return loss

    options = TrainingOptions(
        step_of, optimizer={"first": torch.optim.SGD, "second": torch.optim.SGD}
    )
    choices = {"batch_size": 16, "weight_decay": 0.0}
    data = TensorData.from_tensors(x, valid=0)
    made = Learner(data, halves(), task=Task(), training=options, choices=choices, quiet=True)
    row = made.fit(1, lr=0.1).rows[-1]
    assert [n for _, n in seen] == [16, 16, 8]
    assert row["train_loss"] == pytest.approx(sum(loss * n for loss, n in seen) / 40, rel=1e-6)
