"""Values that nothing can be made from are refused where they are given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flambeau import Data, Domain, Learner, TensorData, TrainingOptions
from flambeau.errors import PlanError
from flambeau.phases.setting_names import COMPILE_MODES, OPTIMIZER_NAMES, PRECISIONS
from flambeau.plan import CORE_RULES, Choice, Rule, combine
from flambeau.plan.value_types import DeviceType
from flambeau.training.compile import compile_model
from flambeau.training.optim.optimizer import OPTIMIZERS
from flambeau.training.optim.precision import DTYPES


def data() -> Data:
    return TensorData.from_tensors(torch.randn(40, 3), torch.arange(40) % 2)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", 0, r"batch_size is 0, .* whole number of samples, at least 1"),
        ("batch_size", -1, "batch_size is -1"),
        ("batch_size", 1.5, r"batch_size is 1\.5"),
        ("batch_size", "big", "batch_size is 'big'"),
        ("batch_size", True, "batch_size is True"),
        ("num_workers", -2, "at least 0"),
        ("lr", 0, "above 0"),
        ("lr", float("nan"), "lr is nan"),
        ("lr", "x", "lr is 'x'"),
        ("epochs", 0, "epochs is 0"),
        ("epochs", 1.5, r"epochs is 1\.5"),
        ("precision", "int8", "one of bf16, fp16, fp32"),
        ("precision", 16, "precision is 16"),
        ("device", "gpu", "a device of this machine"),
        ("device", "meta", "tensors on the meta device have no data"),
        ("optimizer", "adma", "one of adagrad, adam, adamw"),
        ("schedule", "cosin", "one of constant, cosine"),
        ("weight_decay", -1, "at least 0"),
        ("bn", "x", "one of adapt, auto, eval, train"),
        ("memory_format", "nhwc", "one of channels_last"),
        ("compile", "on", "one of off"),
        ("task", "clasification", "Did you mean 'classification'"),
        ("architecture", "resnet18", r"Known names: mlp.*Learner\(data, model=…\)"),
    ],
)
def test_refused_by_the_learner_at_once(key: str, value: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Learner(data(), choices={key: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_here() -> None:
    with pytest.raises(PlanError, match="device is 'cuda', but it must be a device of this mach"):
        Learner(data(), choices={"device": "cuda"})


def test_what_fit_is_given_is_held_to_the_same() -> None:
    learner = Learner(data(), quiet=True)
    with pytest.raises(PlanError, match=r"epochs is 1\.5"):
        learner.fit(1.5)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match=r"lr is 0\.0"):
        learner.fit(1, lr=0.0)
    assert learner.plan["epochs"].source == "rule"


def test_a_factory_reads_the_optimizer_s_name_itself() -> None:
    options = TrainingOptions(
        optimizer=lambda model, values: {"main": torch.optim.SGD(model.parameters(), 0.1)}
    )
    Learner(data(), choices={"optimizer": "mine"}, training=options, quiet=True).fit(1)


@pytest.mark.parametrize(
    ("key", "value"), [("batch_size", 1), ("lr", 3), ("weight_decay", 0), ("device", "cpu")]
)
def test_good_values_pass(key: str, value: Any) -> None:
    [rule] = [rule for rule in CORE_RULES if rule.key == key]
    assert rule.type is not None
    assert rule.type.fault(value) is None
    assert rule.type.accepts(value)


def test_names_in_the_plan_are_those_that_training_builds() -> None:
    assert set(OPTIMIZER_NAMES) == set(OPTIMIZERS)
    assert set(PRECISIONS) == set(DTYPES)
    for mode in COMPILE_MODES:
        compile_model(torch.nn.Linear(1, 1), mode)


def test_a_domains_rule_keeps_the_type_of_the_one_it_replaces() -> None:
    [base] = [rule for rule in CORE_RULES if rule.key == "device"]
    own = Rule("device", (), lambda facts, values: Choice("device", "cpu", "ours"))
    [combined] = [rule for rule in combine(CORE_RULES, [own]) if rule.key == "device"]
    assert combined.decide is own.decide
    assert isinstance(combined.type, DeviceType)
    assert combined.of_machine == base.of_machine


def test_a_rule_with_an_unknown_need_fails_when_the_domain_is_made() -> None:
    rule = Rule("size", ("batchsize",), lambda facts, values: Choice("size", 1, "ours"))
    with pytest.raises(PlanError, match=r"'size'.*needs 'batchsize'.*Did you mean 'batch_size'"):
        Domain(name="wrong", data_classes={}, models={}, tasks={}, rules=(rule,))
