"""Models, settings and batches that cannot be trained: the error names the layer and the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import (
    Callback,
    Classification,
    Data,
    EarlyStopping,
    Learner,
    Phase,
    TensorData,
    TrainingOptions,
)
from flambeau.errors import (
    ArgumentError,
    FlambeauError,
    InputError,
    NonFiniteError,
    OutOfMemoryError,
    PlanError,
    TrainingError,
)

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3


def data() -> Data:
    return TensorData.from_tensors(X, Y)


def fit(model: nn.Module | None = None, samples: Data | None = None, **options: Any) -> Learner:
    batch_size = options.pop("batch_size", 8)
    learner = Learner(
        samples or data(), model, quiet=True, choices={"batch_size": batch_size}, **options
    )
    learner.fit(1)
    return learner


class ChangedOutput(nn.Module):
    """A linear layer whose output is changed by a function."""

    def __init__(self, change: Any, outputs: int = 3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.layer = nn.Linear(6, outputs)
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.layer(self.norm(x)))


class TwoArguments(nn.Linear):
    def forward(self, input: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(input)


EXPORTED = torch.export.export(nn.Linear(6, 3), (torch.randn(4, 6),))


class NoForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (nn.Linear(6, 5), InputError, r"shape \(8, 5\), 5 columns, but Classification has 3"),
        (
            ChangedOutput(lambda y: (y, 1)),
            InputError,
            "output is of type tuple, but Classification expects",
        ),
        (ChangedOutput(lambda y: {"logits": y}), InputError, "output is of type dict, but"),
        (ChangedOutput(lambda y: None), InputError, "output is of type NoneType, but"),
        (ChangedOutput(lambda y: y[:2]), InputError, r"expects \(2,\) for outputs \(2, 3\)"),
        (nn.Identity(), InputError, "Identity has no parameters"),
        (nn.Linear(6, 3).requires_grad_(False), InputError, "Every parameter of Linear is frozen"),
        (nn.Linear(6, 3, device="meta"), InputError, "'weight' is on the meta device"),
        (nn.LazyLinear(3), InputError, "'weight' has no shape yet.*Call the model once"),
        (TwoArguments(6, 3), ArgumentError, r"forward takes \(input.*mask.*data have 1 input"),
        (NoForward(), ArgumentError, "NoForward has no forward"),
        (nn.Linear(5, 3), TrainingError, r"float32, in Linear: .*8x6 and 5x3.*Change the size"),
        (nn.Conv2d(3, 3, 3), TrainingError, "in Conv2d: .*Expected 3D"),
        (nn.Linear, ArgumentError, r"Pass an instance: Linear\(…\)"),
        (len, ArgumentError, "must be an nn.Module, the name of an architecture"),
        (EXPORTED, ArgumentError, "program of torch.export has one mode"),
        (EXPORTED.module(), ArgumentError, r"Calling train\(\) .* Pass the nn.Module that was"),
        ("resnet18", PlanError, "which the domain 'tensors' does not have"),
    ],
)
def test_models_that_do_not_fit_the_data_are_refused(
    model: Any, kind: type[FlambeauError], message: str, tmp_path: Path
) -> None:
    before = (
        {n: v.clone() for n, v in model.state_dict().items()}
        if isinstance(model, ChangedOutput)
        else {}
    )
    with pytest.raises(kind, match=message):
        fit(model)
    # Batch norm has not updated its statistics with the failed batch, and no gradient remains.
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value), name
    if isinstance(model, nn.Module):
        assert all(parameter.grad is None for parameter in model.parameters())


def test_no_files_are_written_for_an_invalid_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for model in (nn.Linear(6, 5), nn.Linear(6, 3).requires_grad_(False), nn.Linear(5, 3)):
        with pytest.raises(FlambeauError):
            fit(model)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_integer_inputs_for_a_float_model_name_the_fix(dtype: torch.dtype) -> None:
    samples = TensorData.from_tensors((X * 10).to(dtype), Y)
    with pytest.raises(TrainingError, match=r"computes in float32.*inputs\.float\(\).*Embedding"):
        fit(nn.Linear(6, 3), samples)


def test_an_index_outside_an_embedding_is_named() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(24, 3))
    samples = TensorData.from_tensors(torch.arange(360).reshape(60, 6) % 9, Y)
    with pytest.raises(InputError, match=r"layer '0' \(Embedding\).*'input' ranges from 0 to 8"):
        fit(model, samples, training=TrainingOptions(doctor=False))


def test_forward_may_use_another_argument_name() -> None:
    class Named(nn.Linear):
        def forward(self, pixel_values: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(pixel_values)

    assert len(fit(Named(6, 3)).history.rows) == 1


def norm_net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def test_a_batch_of_one_with_batch_norm_is_refused() -> None:
    with pytest.raises(InputError, match=r"layer '1' \(BatchNorm1d\).*batch of 1.*drop_last"):
        fit(norm_net(), batch_size=1)
    single = TensorData.from_tensors(X[:49], Y[:49], valid=8)
    assert len(fit(norm_net(), single).history.step_losses) == 5
    statistics = {"batch_size": 1, "bn": "eval"}
    Learner(data(), norm_net(), quiet=True, choices=statistics).fit(1)


def test_a_batch_size_above_the_number_of_rows_works() -> None:
    assert len(fit(batch_size=1000).history.step_losses) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": -1}, "epochs is -1"),
        ({"epochs": 2.5}, "epochs is 2.5"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": "0.1"}, "lr is '0.1'"),
        ({"schedule": "cosin"}, "schedule is 'cosin'"),
    ],
)
def test_invalid_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    learner = Learner(data(), quiet=True)
    before = learner.plan
    with pytest.raises(PlanError, match=message):
        learner.fit(**arguments)
    assert learner.plan == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"choices": [1]}, "choices is"),
        ({"plan": {"a": 1}}, "plan is a dict"),
        ({"task": Classification}, r"Pass an instance: Classification\(…\)"),
        ({"task": "classification"}, "Pass a name as a choice"),
        ({"seed": None}, "seed is None"),
        ({"callbacks": EarlyStopping()}, "give a list"),
    ],
)
def test_invalid_arguments_of_the_learner_are_refused(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        Learner(data(), **arguments)
    with pytest.raises(PlanError, match=r"nowhere\.json cannot be read"):
        Learner(data(), plan="nowhere.json")


def test_invalid_callbacks_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"Create an object: EarlyStopping\(\)"):
        fit(callbacks=[EarlyStopping])
    with pytest.raises(ArgumentError, match="Did you mean 'on_step_end'"):

        class Misspelt(Callback):
            def on_step_finish(self, state: Any) -> None: ...


def test_an_optimizer_of_another_model_is_refused() -> None:
    other = nn.Linear(6, 3)
    options = TrainingOptions(optimizer=lambda m, v: {"main": torch.optim.SGD(other.parameters())})
    with pytest.raises(InputError, match=r"No parameter of the optimizers \(main\)"):
        fit(nn.Linear(6, 3), training=options)


def test_a_phase_with_only_frozen_groups_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    model[1].requires_grad_(False)
    learner = Learner(data(), model, quiet=True)
    phases = [Phase(1), Phase(1, trainable=("1",), name="head")]
    with pytest.raises(InputError, match=r"of the group 1 of Sequential.*phase 'head'"):
        learner.fit_phases(phases)
    assert learner.history.rows == []


def test_a_non_finite_loss_in_the_first_step_is_reported() -> None:
    model = ChangedOutput(lambda y: y * float("nan"))
    before = model.layer.weight.clone()
    with pytest.raises(NonFiniteError, match=r"Step 0 .*the output of ChangedOutput"):
        fit(model)
    assert torch.equal(model.layer.weight, before)


# ---------------------------------------------------------------- memory


def raises_cuda(y: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def allocates_with_torch(y: Tensor) -> Tensor:
    torch.empty(10**15)
    return y


def allocates_with_numpy(y: Tensor) -> Tensor:
    np.empty(10**15)
    return y


@pytest.mark.parametrize("change", [raises_cuda, allocates_with_torch, allocates_with_numpy])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_out_of_memory_says_what_to_change(change: Any, accumulate: int) -> None:
    model = ChangedOutput(change)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(OutOfMemoryError, match="training step 0, on a batch of") as caught:
        fit(model, training=TrainingOptions(accumulate=accumulate))
    text = str(caught.value)
    assert '"batch_size": 4' in text
    assert f'"accumulate": {2 * accumulate}}}' in text
    assert isinstance(caught.value, MemoryError)
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value.__cause__, RuntimeError | MemoryError)
    # Neither batch norm's statistics nor a gradient of the first micro-batch remain.
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_learner_can_train_after_out_of_memory() -> None:
    def once(y: Tensor) -> Tensor:
        if len(calls) == 3:
            calls.append(0)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        calls.append(0)
        return y

    calls: list[int] = []
    no_doctor = TrainingOptions(doctor=False)  # it would call the model too
    learner = Learner(
        data(), ChangedOutput(once), quiet=True, choices={"batch_size": 8}, training=no_doctor
    )
    with pytest.raises(OutOfMemoryError, match="step 3"):
        learner.fit(1)
    assert len(learner.fit(1).rows) == 1


def test_out_of_memory_in_evaluation_and_prediction() -> None:
    def in_eval(y: Tensor) -> Tensor:
        if not model.training:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return y

    model = ChangedOutput(in_eval)
    learner = Learner(data(), model, quiet=True, choices={"batch_size": 8})
    with pytest.raises(OutOfMemoryError, match="in the evaluation after training step 6"):
        learner.fit(1)
    with pytest.raises(OutOfMemoryError, match=r"4 inputs per batch.*batch_size = 2"):
        learner.predict(X[:4])


def test_one_sample_that_exceeds_memory() -> None:
    with pytest.raises(OutOfMemoryError, match="A single sample does not fit"):
        fit(nn.Sequential(nn.Linear(6, 3), Fails()), batch_size=1)


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise MemoryError
