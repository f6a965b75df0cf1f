"""Core's checks: each finds its planted fault with the figures, and is silent on clean set-ups."""

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
from flambeau.doctor import CORE_CHECKS, Finding, Subject, diagnose
from flambeau.task import Classification, Regression
from flambeau.training import TrainingOptions


def rows(n: int = 120, width: int = 5, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(n, width, generator=draws)
    return x * scale, (x[:, 0] > 0).long()


def loud(model: nn.Module, factor: float = 100.0) -> nn.Module:
    """The model with a last layer whose first weights are too large."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(factor)
    return model


def net(width: int = 5, n_outputs: int = 2, *after: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, n_outputs), *after)


def found(learner: Learner) -> dict[str, Finding]:
    return {finding.code: finding for finding in learner.doctor().findings}


# ---------------------------------------------------------------- clean


CLEAN: dict[str, Any] = {
    "two classes": lambda: (TensorData.from_tensors(*rows()), None),
    "twelve classes": lambda: (
        TensorData.from_tensors(rows(600)[0], torch.arange(600) % 12),
        None,
    ),
    "own net": lambda: (TensorData.from_tensors(*rows()), net()),
    "log softmax": lambda: (TensorData.from_tensors(*rows()), net(5, 2, nn.LogSoftmax(1))),
    "regression": lambda: (TensorData.from_tensors(rows()[0], rows()[0].sum(1)), None),
    "several labels": lambda: (TensorData.from_tensors(rows()[0], (rows()[0][:, :3] > 0)), None),
    "whole numbers": lambda: (
        TensorData.from_tensors(torch.arange(600).reshape(120, 5) % 100, rows()[1]),
        nn.Sequential(nn.Embedding(100, 4), nn.Flatten(), nn.Linear(20, 2)),
    ),
    "one rare yes or no": lambda: (
        TensorData.from_tensors(torch.cat([rows()[0], torch.zeros(120, 1)], 1), rows()[1]),
        None,
    ),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_set_ups_are_silent(name: str) -> None:
    data, model = CLEAN[name]()
    report = Learner(data, model, quiet=True).doctor()
    assert report.ok, str(report)
    assert len(report.checks) == len([check for check in CORE_CHECKS if check.runs != "full"])


# ---------------------------------------------------------------- classes


def test_a_class_without_train_rows_is_named() -> None:
    x, y = rows()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # building the data warns of it as well
        data = TensorData.from_tensors(x, y * 2, class_names=["ant", "bee", "wasp"])
        finding = found(Learner(data, quiet=True))["class-not-in-train"]
    assert "bee" in finding.what
    assert "ant" not in finding.what
    assert finding.evidence == {"classes": 3, "missing": 1, "train rows": 96}


@pytest.mark.parametrize("counts", [[5, 0, 3], {"a": 5, "c": 3}, {"a": 5, "b": 0, "c": 3}])
def test_counts_come_in_order_or_by_name(counts: Any) -> None:
    facts = {"class_names": ["a", "b", "c"], "class_counts": counts, "n_train": 8}
    report = diagnose(without_model(facts), [CORE_CHECKS[0]])
    assert report.codes == ("class-not-in-train",)
    assert "class b." in report.findings[0].what


class OnlyFacts(Data):
    """Nothing but facts."""

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
    def model_arguments(self, values: Any) -> Any: ...
    def task_arguments(self, values: Any) -> Any: ...
    def raw(self, part: Any) -> Any: ...


def without_model(facts: Facts) -> Subject:
    def make() -> Any:
        raise AssertionError("a check of facts must not build a model")

    return Subject(OnlyFacts(facts), {}, make)


# ---------------------------------------------------------------- inputs


def test_a_constant_input_is_an_error_where_it_is_the_only_one() -> None:
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


def test_few_samples_may_be_alike() -> None:
    x, y = rows()
    data = TensorData.from_tensors(torch.zeros_like(x), y)
    learner = Learner(data, net(), choices={"batch_size": 3}, quiet=True)
    assert "constant-input" not in found(learner)


def test_a_single_number_may_be_rare() -> None:
    x, y = rows()
    data = TensorData.from_tensors({"a": x, "b": torch.zeros(120, 1)}, y)
    torch.manual_seed(0)

    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.head(torch.cat([a, b], 1))

    assert found(Learner(data, Beside(), quiet=True)) == {}


class Fixed:
    """Parts of a set-up, made by hand."""

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


def by_hand(batch: Batch, model: nn.Module, task: Any = None, **options: Any) -> list[Finding]:
    made = Fixed(batch, model, task or Classification(["no", "yes"]))
    subject = Subject(OnlyFacts({"n_train": len(batch)}), {"epochs": 5}, lambda: made, **options)
    return list(diagnose(subject, CORE_CHECKS).findings)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_name_their_samples(bad: float) -> None:
    x, y = rows(20)
    x[3, 1] = x[11, 4] = bad
    batch = Batch({"x": x}, {"y": y}, weight=20.0, indices=torch.arange(20) + 100)
    finding = next(f for f in by_hand(batch, net()) if f.code == "non-finite-input")
    assert "2 of 20 samples" in finding.what
    assert "sample 103, 111" in finding.what
    assert finding.severity == "error"


def test_inputs_of_any_shape_and_kind_are_read() -> None:
    batch = Batch({"x": torch.zeros(20)}, {"y": torch.arange(20) % 2}, weight=20.0)
    batch.inputs["x"][7] = math.nan  # type: ignore[index]

    class One(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 2)

    codes = [finding.code for finding in by_hand(batch, One())]
    assert codes == ["non-finite-input"]


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("n_classes", [2, 12])
def test_a_softmax_before_the_loss(n_classes: int) -> None:
    x, _ = rows(240)
    data = TensorData.from_tensors(x, torch.arange(240) % n_classes)
    finding = found(Learner(data, net(5, n_classes, nn.Softmax(1)), quiet=True))[
        "softmax-before-loss"
    ]
    # The least loss that is left: every output right and as sure as it can be.
    sure = nn.functional.one_hot(torch.arange(n_classes), n_classes).float()
    least = nn.functional.cross_entropy(sure, torch.arange(n_classes)).item()
    assert f"{least:.3f}" in finding.what
    assert finding.severity == "error"


def test_the_loss_at_the_start_is_that_of_guessing() -> None:
    x, y = rows()
    learner = Learner(TensorData.from_tensors(x, y), loud(net()), quiet=True)
    assert [*found(learner)] == ["loss-at-start"]
    finding = found(learner)["loss-at-start"]
    batch = next(iter(learner.built.loader("train").batches(0)))
    expected = nn.functional.cross_entropy(learner.model(batch.input), batch.target).item()
    # One forward pass on the same batch; float32 sums in another order.
    assert finding.evidence["loss"] == pytest.approx(expected, rel=1e-5)
    assert finding.evidence["guessing"] == pytest.approx(math.log(2))


def test_several_labels_have_a_loss_of_guessing_too() -> None:
    x, _ = rows()
    learner = Learner(TensorData.from_tensors(x, (x[:, :3] > 0)), loud(net(5, 3)), quiet=True)
    finding = found(learner)["loss-at-start"]
    assert finding.evidence["guessing"] == pytest.approx(math.log(2))


def test_a_model_that_has_trained_may_lose_what_it_likes() -> None:
    x, y = rows(20)
    batch = Batch({"x": x}, {"y": y}, weight=20.0, indices=torch.arange(20))
    assert [f.code for f in by_hand(batch, loud(net()))] == ["loss-at-start"]
    assert by_hand(batch, loud(net()), steps_done=1) == []


def test_a_learner_says_how_far_it_is() -> None:
    x, y = rows()
    options = TrainingOptions(doctor=False)
    learner = Learner(TensorData.from_tensors(x, y), loud(net()), training=options, quiet=True)
    assert "loss-at-start" in found(learner)
    learner.fit(1, lr=1e-3)
    assert "loss-at-start" not in found(learner)


def test_amounts_may_be_shares() -> None:
    x, _ = rows(20)
    targets = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    batch = Batch({"x": x}, {"y": targets}, weight=20.0, indices=torch.arange(20))
    assert by_hand(batch, net(5, 2, nn.Softmax(1)), Regression(["a", "b"])) == []


# ---------------------------------------------------------------- nothing is changed


def test_everything_is_left_as_it_was() -> None:
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


def test_training_after_a_visit_is_training_without_it() -> None:
    def weights(visit: bool) -> list[Tensor]:
        learner = Learner(TensorData.from_tensors(*rows()), quiet=True, seed=3)
        if visit:
            learner.doctor()
        learner.fit(1)
        return list(learner.model.parameters())

    assert all(map(torch.equal, weights(True), weights(False)))
