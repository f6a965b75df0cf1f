"""Before a first fit the quick checks run by themselves: once, within a bounded cost, unseen."""

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
from flambeau.doctor import CORE_CHECKS, READS, Check, Finding, Subject, look_before_fit
from flambeau.learner.examine import subject_of
from flambeau.tensors.domain import DOMAIN


def table(n: int = 400) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    return x, (x.sum(1) > 0).long()


class Net(nn.Module):
    """Counts its passes."""

    def __init__(self, *last: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)]
        self.layers = nn.Sequential(*layers, *last)
        self.samples: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.samples.append(len(x))
        return self.layers(x)


def warned(action: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [str(w.message) for w in caught if issubclass(w.category, FlambeauWarning)]


# ---------------------------------------------------------------- what is shown


def test_a_finding_is_a_warning_once_a_learner() -> None:
    learner = Learner(TensorData.from_tensors(*table()), Net(nn.Softmax(1)), quiet=True)
    [message] = warned(lambda: learner.fit(1))
    assert message.startswith("[softmax-before-loss] Net answers with probabilities")
    assert "Take the softmax out of the model's forward" in message
    assert message.endswith("More: docs/doctor.md#softmax-before-loss")
    assert warned(lambda: learner.fit(1)) == []


def test_it_can_be_switched_off() -> None:
    options = TrainingOptions(doctor=False)
    data = TensorData.from_tensors(*table())
    learner = Learner(data, Net(nn.Softmax(1)), training=options, quiet=True)
    assert warned(lambda: learner.fit(1)) == []
    assert not learner.doctor().ok  # asked, it answers


def test_every_verb_that_trains_asks() -> None:
    learner = Learner(TensorData.from_tensors(*table()), Net(nn.Softmax(1)), quiet=True)
    assert len(warned(lambda: learner.fit_one_cycle(1))) == 1


def test_a_resumed_run_has_been_looked_at(tmp_path: Any) -> None:
    data = TensorData.from_tensors(*table())
    learner = Learner(data, Net(nn.Softmax(1)), folder=tmp_path / "run", quiet=True)
    assert len(warned(lambda: learner.fit(1))) == 1
    again = Learner(data, Net(nn.Softmax(1)), folder=tmp_path / "run", quiet=True)
    assert warned(again.resume) == []


def test_what_was_warned_of_already_is_not_repeated() -> None:
    x, y = table()

    def whole() -> None:
        names = ["ant", "bee", "wasp"]
        Learner(TensorData.from_tensors(x, y * 2, class_names=names), quiet=True).fit(1)

    assert [message.split("]")[0] for message in warned(whole)] == ["[class-not-in-train"]


def test_a_model_that_fails_is_left_to_the_run() -> None:
    learner = Learner(TensorData.from_tensors(*table()), nn.Linear(7, 2), quiet=True)
    with pytest.raises(Exception, match=r"shape|mat1"):
        learner.fit(1)


def test_a_domains_check_runs_when_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("few", "Train has 3 rows.", {"rows": 3}, "Collect more.")
    for runs, count in (("first fit", 1), ("asked", 0), ("full", 0)):
        check = Check("few", "few rows", lambda subject: finding, "facts", runs)  # type: ignore[arg-type]
        learner = Learner(TensorData.from_tensors(*table()), quiet=True)
        monkeypatch.setattr(learner, "domain", replace(DOMAIN, checks=(check,)))
        assert len(warned(lambda patient=learner: patient.fit(1))) == count


# ---------------------------------------------------------------- what it costs


class Clock:
    """Moves on by so much at each look."""

    def __init__(self, step_s: float) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def patient(model: nn.Module, n: int = 4000, epochs: int = 5, batch_size: int = 100) -> Subject:
    choices = {"batch_size": batch_size, "epochs": epochs}
    learner = Learner(TensorData.from_tensors(*table(n)), model, choices=choices, quiet=True)
    return subject_of(learner._setup(), learner.plan)


def test_the_model_runs_twice_on_64_samples() -> None:
    model = Net()
    assert look_before_fit(patient(model), CORE_CHECKS) == []
    assert model.samples == [64, 64]


def test_a_short_run_of_a_dear_model_is_not_doubled() -> None:
    # 10 steps of 100: 64 samples four times over were more than 2% of it.
    cheap, dear = Net(), Net()
    look_before_fit(patient(cheap, 1250, 1), CORE_CHECKS, clock=Clock(1e-6))
    assert cheap.samples == [2, 64, 64]
    # The clock says 0.02 s for the two samples: 0.04 s for all passes of one, of which 1 s has 25.
    look_before_fit(patient(dear, 1250, 1), CORE_CHECKS, clock=Clock(0.02))
    assert dear.samples[0] == 2
    assert len(dear.samples) == 3
    assert all(8 <= n < 25 for n in dear.samples[1:]), dear.samples


def test_no_check_is_asked_once_the_time_is_spent() -> None:
    asked: list[str] = []

    def check(code: str, reads: Any) -> Check:
        return Check(code, code, lambda subject: asked.append(code), reads, "first fit")

    checks = [check(reads, reads) for reads in reversed(READS)]
    look_before_fit(patient(Net()), checks, clock=Clock(0.0))
    assert asked == list(READS)  # the cheapest first
    asked.clear()
    # The end is at 1 + 0.4 s; the looks before the first three checks are at 0.8, 1.2 and 1.6 s.
    look_before_fit(patient(Net()), checks, clock=Clock(0.4))
    assert asked == list(READS[:2])


def test_a_compiled_model_is_not_run() -> None:
    class OptimizedModule(Net):
        """Named as torch.compile names it."""

    model = OptimizedModule(nn.Softmax(1))
    assert look_before_fit(patient(model), CORE_CHECKS) == []
    assert model.samples == []


def test_one_train_batch_is_read() -> None:
    reads: list[int] = []
    subject = patient(Net())
    loader = subject.parts.loader("train")
    batches = loader.batches

    def counted(epoch: int, start_step: int = 0) -> Any:
        for batch in batches(epoch, start_step):
            reads.append(len(batch))
            yield batch

    loader.batches = counted  # type: ignore[method-assign]
    look_before_fit(subject, CORE_CHECKS)
    assert reads == [100]


# ---------------------------------------------------------------- nothing is changed


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "learns": [parameter.requires_grad for parameter in model.parameters()],
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
def test_nothing_of_a_learner_changes(full: bool) -> None:
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
    before, own = state_of(model), order.get_state()
    learner.doctor(full=full)
    assert same(before, state_of(model))
    assert torch.equal(order.get_state(), own)


@pytest.mark.parametrize("full", [False, True])
def test_training_is_the_same_with_and_without(full: bool) -> None:
    def weights(looks: bool) -> dict[str, Tensor]:
        options = TrainingOptions(doctor=looks)
        learner = Learner(
            TensorData.from_tensors(*table()), Net(), training=options, quiet=True, seed=3
        )
        if looks and full:
            learner.doctor(full=True)
        torch.manual_seed(11)
        learner.fit(2)
        return dict(learner.model.state_dict())

    assert same(weights(True), weights(False))


def test_a_warning_points_at_the_line_that_trains() -> None:
    learner = Learner(TensorData.from_tensors(*table()), Net(nn.Softmax(1)), quiet=True)
    with pytest.warns(FlambeauWarning, match="softmax-before-loss") as caught:
        learner.fit(1)
    assert caught[0].filename == __file__
