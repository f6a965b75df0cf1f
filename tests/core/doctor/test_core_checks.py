"""Core's checks: each finds its mistake with the measured values; correct setups have none."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Data, Learner, TensorData
from flambeau.data.data import Facts
from flambeau.data.split import Split
from flambeau.doctor import CORE_CHECKS, Finding, TrainingSetup, diagnose
from flambeau.task import Classification, Regression
from flambeau.tensors.domain import DOMAIN
from flambeau.training import TrainingOptions


def rows(n: int = 120, width: int = 5, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(n, width, generator=draws)
    return x * scale, (x[:, 0] > 0).long()


def scale_head(model: nn.Module, factor: float = 100.0) -> nn.Module:
    """Return the model with the weights of its last layer multiplied by ``factor``."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(factor)
    return model


def net(width: int = 5, n_outputs: int = 2, *after: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, n_outputs), *after)


def found(learner: Learner) -> dict[str, Finding]:
    return {finding.code: finding for finding in learner.doctor().findings}


# ---------------------------------------------------------------- correct setups


CORRECT: dict[str, Any] = {
    "two classes": lambda: (TensorData.from_tensors(*rows()), None),
    "twelve classes": lambda: (
        TensorData.from_tensors(rows(600)[0], torch.arange(600) % 12),
        None,
    ),
    "custom network": lambda: (TensorData.from_tensors(*rows()), net()),
    "log softmax": lambda: (TensorData.from_tensors(*rows()), net(5, 2, nn.LogSoftmax(1))),
    "regression": lambda: (TensorData.from_tensors(rows()[0], rows()[0].sum(1)), None),
    "several labels": lambda: (TensorData.from_tensors(rows()[0], (rows()[0][:, :3] > 0)), None),
    "integers": lambda: (
        TensorData.from_tensors(torch.arange(600).reshape(120, 5) % 100, rows()[1]),
        nn.Sequential(nn.Embedding(100, 4), nn.Flatten(), nn.Linear(20, 2)),
    ),
    "one rare flag": lambda: (
        TensorData.from_tensors(torch.cat([rows()[0], torch.zeros(120, 1)], 1), rows()[1]),
        None,
    ),
}


@pytest.mark.parametrize("name", CORRECT)
def test_correct_setups_have_no_findings(name: str) -> None:
    data, model = CORRECT[name]()
    report = Learner(data, model, quiet=True).doctor()
    assert report.ok, str(report)
    every = (*CORE_CHECKS, *DOMAIN.checks)
    assert len(report.checks) == len([check for check in every if check.runs != "full"])


# ---------------------------------------------------------------- classes


def test_a_class_without_train_rows_is_named() -> None:
    x, y = rows()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # creating the data warns about it too
        data = TensorData.from_tensors(x, y * 2, class_names=["ant", "bee", "wasp"])
        finding = found(Learner(data, quiet=True))["class-not-in-train"]
    assert "bee" in finding.what
    assert "ant" not in finding.what
    assert finding.evidence == {"classes": 3, "missing": 1, "train rows": 96}


def test_a_class_without_train_rows_is_named_from_the_facts() -> None:
    facts = {"class_names": ["a", "b", "c"], "class_counts": [5, 0, 3], "n_train": 8}
    report = diagnose(without_model(facts), [CORE_CHECKS[0]])
    assert report.codes == ("class-not-in-train",)
    assert "class b." in report.findings[0].what


class OnlyFacts(Data):
    """Data with facts only."""

    domain = "nowhere:DOMAIN"

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    @property
    def split(self) -> Split:
        raise NotImplementedError

    def facts(self) -> Facts:
        return self._facts

    def preprocessor(self, values: Any) -> Any: ...
    def dataset(self, part: Any, preprocessor: Any, values: Any) -> Any: ...
    def model_arguments(self, preprocessor: Any, values: Any) -> Any: ...
    def task_arguments(self, preprocessor: Any, values: Any) -> Any: ...
    def raw(self, part: Any) -> Any: ...


def without_model(facts: Facts) -> TrainingSetup:
    def build() -> Any:
        raise AssertionError("a check of facts must not build a model")

    return TrainingSetup(OnlyFacts(facts), {}, build)


# ---------------------------------------------------------------- inputs


def test_a_constant_only_input_is_an_error() -> None:
    x, y = rows()
    finding = found(
        Learner(TensorData.from_tensors(torch.full_like(x, 3.0), y), net(), quiet=True)
    )["constant-input"]
    assert finding.severity == "error"
    assert finding.evidence["value"] == 3.0
    assert finding.evidence["shape"] == [5]


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(10, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.cat([a, b], 1))


def test_one_constant_input_of_two_is_a_warning() -> None:
    x, y = rows()
    data = TensorData.from_tensors({"a": x, "b": torch.ones_like(x)}, y)
    finding = found(Learner(data, TwoInputs(), quiet=True))["constant-input"]
    assert finding.severity == "warning"
    assert "'b'" in finding.what


def test_three_samples_may_be_equal() -> None:
    x, y = rows()
    data = TensorData.from_tensors(torch.zeros_like(x), y)
    learner = Learner(data, net(), choices={"batch_size": 3}, quiet=True)
    assert "constant-input" not in found(learner)


def test_a_single_value_per_sample_may_be_constant() -> None:
    x, y = rows()
    data = TensorData.from_tensors({"a": x, "b": torch.zeros(120, 1)}, y)
    torch.manual_seed(0)

    class TwoColumns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.head(torch.cat([a, b], 1))

    assert found(Learner(data, TwoColumns(), quiet=True)) == {}


class Fixed:
    """A ``BuiltPlan`` of given objects."""

    def __init__(self, batch: Batch, model: nn.Module, task: Any) -> None:
        self.batch, self.model, self.task = batch, model, task
        self.device = torch.device("cpu")
        self.preprocessor: Any = self

    def on_device(self, batch: Batch) -> Batch:
        return batch

    def loader(self, part: str) -> Any:
        assert part == "train"
        return self

    steps_per_epoch = 100

    def batches(self, epoch: int, start_step: int = 0) -> Any:
        return iter([self.batch])


def findings(batch: Batch, model: nn.Module, task: Any = None, **options: Any) -> list[Finding]:
    built = Fixed(batch, model, task or Classification(["no", "yes"]))
    setup = TrainingSetup(
        OnlyFacts({"n_train": len(batch)}), {"epochs": 5}, lambda: built, **options
    )
    return list(diagnose(setup, CORE_CHECKS).findings)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_samples_with_non_finite_inputs_are_named(bad: float) -> None:
    x, y = rows(20)
    x[3, 1] = x[11, 4] = bad
    batch = Batch({"x": x}, {"y": y}, weight=20.0, indices=torch.arange(20) + 100)
    finding = next(f for f in findings(batch, net()) if f.code == "non-finite-input")
    assert "2 of 20 samples" in finding.what
    assert "sample 103, 111" in finding.what
    assert finding.severity == "error"


def test_one_dimensional_inputs_are_checked() -> None:
    batch = Batch({"x": torch.zeros(20)}, {"y": torch.arange(20) % 2}, weight=20.0)
    batch.inputs["x"][7] = math.nan  # type: ignore[index]

    class One(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 2)

    codes = [finding.code for finding in findings(batch, One())]
    assert codes == ["non-finite-input"]


# ---------------------------------------------------------------- outputs


@pytest.mark.parametrize("n_classes", [2, 12])
def test_a_softmax_before_the_loss(n_classes: int) -> None:
    x, _ = rows(240)
    data = TensorData.from_tensors(x, torch.arange(240) % n_classes)
    finding = found(Learner(data, net(5, n_classes, nn.Softmax(1)), quiet=True))[
        "softmax-before-loss"
    ]
    # The lowest possible loss: every output is correct with probability 1.
    one_hot = nn.functional.one_hot(torch.arange(n_classes), n_classes).float()
    least = nn.functional.cross_entropy(one_hot, torch.arange(n_classes)).item()
    assert f"{least:.3f}" in finding.what
    assert finding.severity == "error"


def test_the_initial_loss_is_compared_with_a_uniform_one() -> None:
    x, y = rows()
    learner = Learner(TensorData.from_tensors(x, y), scale_head(net()), quiet=True)
    assert [*found(learner)] == ["high-initial-loss"]
    finding = found(learner)["high-initial-loss"]
    batch = next(iter(learner.built.loader("train").batches(0)))
    expected = nn.functional.cross_entropy(learner.model(batch.input), batch.target).item()
    # The same batch, but float32 sums in another order.
    assert finding.evidence["loss"] == pytest.approx(expected, rel=1e-5)
    assert finding.evidence["uniform"] == pytest.approx(math.log(2))


def test_multi_label_tasks_have_a_uniform_loss_too() -> None:
    x, _ = rows()
    learner = Learner(TensorData.from_tensors(x, (x[:, :3] > 0)), scale_head(net(5, 3)), quiet=True)
    finding = found(learner)["high-initial-loss"]
    assert finding.evidence["uniform"] == pytest.approx(math.log(2))


def test_a_trained_model_may_have_a_high_loss() -> None:
    x, y = rows(20)
    batch = Batch({"x": x}, {"y": y}, weight=20.0, indices=torch.arange(20))
    assert [f.code for f in findings(batch, scale_head(net()))] == ["high-initial-loss"]
    assert findings(batch, scale_head(net()), steps_done=1) == []


def test_a_learner_passes_its_number_of_steps() -> None:
    x, y = rows()
    options = TrainingOptions(doctor=False)
    learner = Learner(
        TensorData.from_tensors(x, y), scale_head(net()), training=options, quiet=True
    )
    assert "high-initial-loss" in found(learner)
    learner.fit(1, lr=1e-3)
    assert "high-initial-loss" not in found(learner)


def test_regression_targets_may_be_probabilities() -> None:
    x, _ = rows(20)
    targets = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    batch = Batch({"x": x}, {"y": targets}, weight=20.0, indices=torch.arange(20))
    assert findings(batch, net(5, 2, nn.Softmax(1)), Regression(["a", "b"])) == []


# ---------------------------------------------------------------- no side effects


def test_model_and_generators_are_unchanged() -> None:
    x, y = rows()
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    model[1].eval()
    learner = Learner(TensorData.from_tensors(x, y), model, quiet=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    learner.doctor()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_doctor_does_not_change_later_training() -> None:
    def weights(doctor: bool) -> list[Tensor]:
        learner = Learner(TensorData.from_tensors(*rows()), quiet=True, seed=3)
        if doctor:
            learner.doctor()
        learner.fit(1)
        return list(learner.model.parameters())

    assert all(map(torch.equal, weights(True), weights(False)))
