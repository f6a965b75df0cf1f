"""A trial runs the real step, and leaves everything outside of its copy bit for bit as it was."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import Learner, TensorData, TrainingOptions
from flambeau.phases import recipes
from flambeau.tuning import step_settings
from flambeau.tuning.trial import PrecisionAgreement, StepSetting, Trial, why_not_testable

N = 64


class Net(nn.Module):
    """Everything that could be disturbed: statistics, dropout, a tied tensor, a Python counter."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(16, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(self.body(x))


def learner(model: nn.Module | None = None, **choices: Any) -> Learner:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(N, 6, generator=draws)
    data = TensorData.from_tensors(x, torch.arange(N) % 3)
    torch.manual_seed(1)
    choices = {"batch_size": 8, "num_threads": 1, **choices}
    return Learner(data, model or Net(), choices=choices, quiet=True)


def trial(made: Learner, clock: Callable[[], float] | None = None) -> Trial:
    [phase] = recipes.single_phase({**made.plan.values, "epochs": 2, "lr": 1e-2})
    more = {} if clock is None else {"clock": clock}
    return Trial(
        made.built.components(),
        made.training,
        phase,
        made.built.sample_batch,
        **more,
    )


def everything(made: Learner) -> dict[str, Any]:
    """All that a trial could disturb, as bytes."""
    order = [batch.indices for batch in made.built.loader("train").batches(0)]
    return {
        **{name: value.clone() for name, value in made.model.state_dict().items()},
        "gradients": [value.grad for value in made.model.parameters()],
        "requires_grad": [value.requires_grad for value in made.model.parameters()],
        "modes": [module.training for module in made.model.modules()],
        "calls": made.model.calls,
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),
        "threads": torch.get_num_threads(),
        "order": torch.cat([each for each in order if each is not None]),
    }


def same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, after[name]), name
        else:
            assert value == after[name], name


@pytest.mark.parametrize("what", ["step_times", "peak_bytes", "agreement"])
@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_outside_of_the_trial_changes(what: str, frozen: bool) -> None:
    made = learner()
    made.fit(1)
    if frozen:
        made.model.head.weight.requires_grad_(False)
    made.model.eval()
    before = everything(made)
    setting = StepSetting("bf16", "channels_last", num_threads=2)
    if what == "step_times":
        assert len(trial(made).step_times(setting, 8, 3)) == 3
    elif what == "peak_bytes":
        trial(made).peak_bytes(setting, 8)
    else:
        trial(made).agreement(setting, 8)
    same(before, everything(made))


def test_a_trial_does_not_change_the_following_training() -> None:
    def weights(tries: bool) -> list[Tensor]:
        made = learner(probe="off")
        torch.manual_seed(5)
        if tries:
            trial(made).step_times(StepSetting(num_threads=1), 8, 2)
            trial(made).agreement(StepSetting("bf16", num_threads=1), 8)
        made.fit(2)
        return list(made.model.state_dict().values())

    for mine, theirs in zip(weights(False), weights(True), strict=True):
        assert torch.equal(mine, theirs)


def test_measuring_does_not_change_the_following_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_settings, "fits_without_measuring", lambda *_: False)

    def weights(probe: str) -> list[Tensor]:
        made = learner(probe=probe)
        torch.manual_seed(5)
        made.fit(2)
        assert made.plan.values["probe"] == ("off" if probe == "off" else "skipped")
        assert made.plan.values["precision"] == "fp32"
        return list(made.model.state_dict().values())

    for mine, theirs in zip(weights("off"), weights("auto"), strict=True):
        assert torch.equal(mine, theirs)


def test_each_step_is_timed_after_two_that_are_not() -> None:
    ticks = iter(range(100))
    # A tick before each of the two + three steps and one after: each step is a second long.
    seconds = trial(learner(), lambda: float(next(ticks) ** 2)).step_times(StepSetting(), 8, 3)
    assert seconds == [9 - 4, 16 - 9, 25 - 16]


def test_the_step_of_a_trial_is_that_of_the_run() -> None:
    seen: list[tuple[int, bool]] = []

    class Watched(Net):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((len(x), self.training))
            return super().forward(x)

    made = learner(Watched(), accumulate=2)
    made.training = TrainingOptions(clip_norm=1.0)
    trial(made).step_times(StepSetting(), 8, 2)
    assert seen == [(8, True)] * 4


# ---------------------------------------------------------------- how exact


def test_bf16_agrees_on_a_net_that_trains_well_in_it() -> None:
    made = learner()
    found = trial(made).agreement(StepSetting("bf16"), 32)
    assert 0 < found.loss_error < 0.02
    assert 0.98 < found.cosine < 1
    exact = trial(made).agreement(StepSetting("fp32"), 32)
    assert exact == PrecisionAgreement(0.0, pytest.approx(1.0, abs=1e-12))
    assert exact.is_close


def test_bf16_is_refused_if_gradients_disagree() -> None:
    class Cancels(nn.Module):
        """A small difference of large numbers: bf16 keeps none of it."""

        def __init__(self) -> None:
            super().__init__()
            self.large = nn.Linear(6, 3)
            nn.init.constant_(self.large.bias, 5_000)

        def forward(self, x: Tensor) -> Tensor:
            return self.large(x) - 5_000

    found = trial(learner(Cancels())).agreement(StepSetting("bf16"), 32)
    assert not found.is_close


def test_a_precision_that_does_not_agree_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "flambeau.tuning.trial.Trial.agreement",
        lambda self, setting, size: PrecisionAgreement(0.3, 0.5),
    )
    monkeypatch.setattr("flambeau.plan.rules_machine.has_fast_bf16", lambda device: True)
    from flambeau.plan import precision_rule
    from flambeau.tensors import domain as tensors_domain

    rules = (*tensors_domain.DOMAIN.rules, precision_rule({}, given="Nets gained."))
    monkeypatch.setattr(
        "flambeau.learner.learner.domain_of",
        lambda data: tensors_domain.Domain(
            **{**vars(tensors_domain.DOMAIN), "rules": rules, "name": "tensors"}
        ),
    )
    made = learner()
    assert made.plan.values["precision"] == "bf16"
    made.fit(1)
    assert made.plan.values["precision"] == "fp32"
    assert "the loss differs by 30.00% from fp32" in made.plan["precision"].reason
    kept = learner(precision="bf16")
    kept.fit(1)
    assert kept.plan.values["precision"] == "bf16", "what the user fixed stays"


def test_no_trial_for_large_models_and_custom_train_steps() -> None:
    made = learner()
    parts = made.built.components()
    assert why_not_testable(parts, TrainingOptions(), 10**9) == ""
    assert "would take" in why_not_testable(parts, TrainingOptions(), 1_000)
    own = TrainingOptions(train_step=lambda *arguments: None)  # type: ignore[arg-type, return-value]
    assert "A custom train_step" in why_not_testable(parts, own, 10**9)
