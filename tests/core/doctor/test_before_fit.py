"""Before a first fit the fast checks run once, within a time budget, and change nothing."""

from __future__ import annotations

import copy
import random
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from flambeau import FlambeauWarning, Learner, TensorData, TrainingOptions
from flambeau.doctor import CORE_CHECKS, READS, Check, Finding, TrainingSetup, check_before_fit
from flambeau.learner.examine import training_setup as setup_of
from flambeau.tensors.domain import DOMAIN


def table(n: int = 400) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()


SAMPLES: dict[int, list[int]] = {}


class Net(nn.Module):
    """Records the batch size of each forward pass, not in an attribute: checks restore these."""

    def __init__(self, *last: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)]
        self.layers = nn.Sequential(*layers, *last)
        SAMPLES[id(self)] = []

    def forward(self, x: Tensor) -> Tensor:
        self.samples.append(len(x))
        return self.layers(x)

    @property
    def samples(self) -> list[int]:
        return SAMPLES[id(self)]


def warned(action: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(w.message) for w in caught if issubclass(w.category, FlambeauWarning)]


# ---------------------------------------------------------------- warnings


def test_a_finding_is_a_warning_in_the_first_fit_only() -> None:
    learner = Learner(TensorData.from_tensors(*table()), Net(nn.Softmax(1)), quiet=True)
    [message] = warned(lambda: learner.fit(1))
    assert message.startswith("[softmax-before-loss] Net outputs probabilities")
    assert "Remove the softmax from the model's forward" in message
    assert message.endswith("See docs/doctor.md#softmax-before-loss")
    assert warned(lambda: learner.fit(1)) == []


def test_it_can_be_disabled() -> None:
    options = TrainingOptions(doctor=False)
    data = TensorData.from_tensors(*table())
    learner = Learner(data, Net(nn.Softmax(1)), training=options, quiet=True)
    assert warned(lambda: learner.fit(1)) == []
    assert not learner.doctor().ok  # still runs on request


def test_fit_one_cycle_runs_the_checks_too() -> None:
    learner = Learner(TensorData.from_tensors(*table()), Net(nn.Softmax(1)), quiet=True)
    assert len(warned(lambda: learner.fit_one_cycle(1))) == 1


def test_a_resumed_run_is_not_checked_again(tmp_path: Any) -> None:
    data = TensorData.from_tensors(*table())
    learner = Learner(data, Net(nn.Softmax(1)), folder=tmp_path / "run", quiet=True)
    assert len(warned(lambda: learner.fit(1))) == 1
    again = Learner(data, Net(nn.Softmax(1)), folder=tmp_path / "run", quiet=True)
    assert warned(again.resume) == []


def test_a_warning_about_the_data_is_not_repeated() -> None:
    x, y = table()

    def create_and_fit() -> None:
        names = ["ant", "bee", "wasp"]
        Learner(TensorData.from_tensors(x, y * 2, class_names=names), quiet=True).fit(1)

    assert [message.split("]")[0] for message in warned(create_and_fit)] == ["[class-not-in-train"]


def test_an_error_in_the_model_is_raised_by_the_fit() -> None:
    learner = Learner(TensorData.from_tensors(*table()), nn.Linear(7, 2), quiet=True)
    with pytest.raises(Exception, match=r"shape|mat1"):
        learner.fit(1)


def test_a_domains_check_runs_only_if_it_asks_to(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("few", "Train has 3 rows.", {"rows": 3}, "Collect more.")
    for runs, count in (("first fit", 1), ("on request", 0), ("full", 0)):
        check = Check("few", "few rows", lambda setup: finding, "facts", runs)  # type: ignore[arg-type]
        learner = Learner(TensorData.from_tensors(*table()), quiet=True)
        monkeypatch.setattr(learner, "domain", replace(DOMAIN, checks=(check,)))
        assert len(warned(lambda learner=learner: learner.fit(1))) == count


# ---------------------------------------------------------------- cost


class Clock:
    """Advances by a fixed step with each call."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def training_setup(
    model: nn.Module, n: int = 4000, epochs: int = 5, batch_size: int = 100
) -> TrainingSetup:
    choices = {"batch_size": batch_size, "epochs": epochs}
    learner = Learner(TensorData.from_tensors(*table(n)), model, choices=choices, quiet=True)
    return setup_of(learner._setup(), learner.plan)


def test_the_model_runs_twice_on_64_samples() -> None:
    model = Net()
    assert check_before_fit(training_setup(model), CORE_CHECKS) == []
    assert model.samples == [64, 64]


def test_a_slow_model_gets_fewer_samples_in_a_short_run() -> None:
    # 10 steps of 100 samples: four passes over 64 samples exceed 2% of the run.
    fast, slow = Net(), Net()
    check_before_fit(training_setup(fast, 1250, 1), CORE_CHECKS, clock=Clock(1e-6))
    assert fast.samples == [2, 64, 64]
    # Two samples take 0.02 s, so all passes of one sample take 0.04 s: 25 samples fit into 1 s.
    check_before_fit(training_setup(slow, 1250, 1), CORE_CHECKS, clock=Clock(0.02))
    assert slow.samples[0] == 2
    assert len(slow.samples) == 3
    assert all(8 <= n < 25 for n in slow.samples[1:]), slow.samples


def test_no_check_starts_after_the_time_limit() -> None:
    ran: list[str] = []

    def check(code: str, reads: Any) -> Check:
        return Check(code, code, lambda setup: ran.append(code), reads, "first fit")

    checks = [check(reads, reads) for reads in reversed(READS)]
    check_before_fit(training_setup(Net()), checks, clock=Clock(0.0))
    assert ran == list(READS)  # the cheapest first
    ran.clear()
    # The limit is at 1 + 0.4 s; the clock before the first three checks reads 0.8, 1.2 and 1.6 s.
    check_before_fit(training_setup(Net()), checks, clock=Clock(0.4))
    assert ran == list(READS[:2])


def test_a_compiled_model_is_not_run() -> None:
    class OptimizedModule(Net):
        """Has the class name that torch.compile uses."""

    model = OptimizedModule(nn.Softmax(1))
    assert check_before_fit(training_setup(model), CORE_CHECKS) == []
    assert model.samples == []


def test_only_one_train_batch_is_read() -> None:
    reads: list[int] = []
    setup = training_setup(Net())
    loader = setup.built.loader("train")
    batches = loader.batches

    def counted(epoch: int, start_step: int = 0) -> Any:
        for batch in batches(epoch, start_step):
            reads.append(len(batch))
            yield batch

    loader.batches = counted  # type: ignore[method-assign]
    check_before_fit(setup, CORE_CHECKS)
    assert reads == [100]


# ---------------------------------------------------------------- no side effects


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "trainable": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "torch": torch.get_rng_state(),
        "numpy": copy.deepcopy(np.random.get_state()),
        "python": random.getstate(),
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("full", [False, True])
def test_the_doctor_changes_no_state(full: bool) -> None:
    model = Net()
    model.layers[1].eval()
    model.layers[0].requires_grad_(False)
    x, y = table()
    order = torch.Generator().manual_seed(5)
    train = DataLoader(TensorDataset(x, y), 20, shuffle=True, generator=order)
    data = TensorData.from_loaders(
        train, DataLoader(TensorDataset(x[:40], y[:40]), 20), n_classes=2
    )
    learner = Learner(data, model, quiet=True)
    before, sampler_state = state_of(model), order.get_state()
    learner.doctor(full=full)
    assert same(before, state_of(model))
    assert torch.equal(order.get_state(), sampler_state)


@pytest.mark.parametrize("full", [False, True])
def test_training_is_the_same_with_and_without_doctor(full: bool) -> None:
    def weights(doctor: bool) -> dict[str, Tensor]:
        options = TrainingOptions(doctor=doctor)
        learner = Learner(
            TensorData.from_tensors(*table()), Net(), training=options, quiet=True, seed=3
        )
        if doctor and full:
            learner.doctor(full=True)
        torch.manual_seed(11)
        learner.fit(2)
        return dict(learner.model.state_dict())

    assert same(weights(True), weights(False))


def test_a_warning_points_at_the_call_of_fit() -> None:
    learner = Learner(TensorData.from_tensors(*table()), Net(nn.Softmax(1)), quiet=True)
    with pytest.warns(FlambeauWarning, match="softmax-before-loss") as caught:
        learner.fit(1)
    assert caught[0].filename == __file__
