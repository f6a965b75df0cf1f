"""``learner.loss_spikes``: which losses are spikes, and which batch was in that step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from flambeau import Callback, Learner, TensorData, TrainingOptions, TrainState
from flambeau.artefact.checkpoint_files import checkpoint_step
from flambeau.callbacks import Checkpointing
from flambeau.cli.fit_command import _report_spikes
from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.inspect import LossSpike, find_spikes
from flambeau.learner import fit_steps
from flambeau.learner.build import BuiltPlan
from flambeau.learner.fit_steps import FitInputs, FitStep, FitSteps, fit_of_step, inputs_of_fit
from flambeau.training.step import train_step


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    before = torch.get_rng_state()
    torch.manual_seed(5)
    yield
    torch.set_rng_state(before)


def noise(seed: int, n: int = 600, sigma: float = 0.1) -> Any:
    return np.random.default_rng(seed).lognormal(0.0, sigma, n)


# The rule


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5, 1.0])
def test_noise_and_a_falling_loss_have_no_spike(sigma: float) -> None:
    falling = 0.05 + 2.0 * np.exp(-np.arange(600) / 80)
    found = [find_spikes(list(falling * noise(seed, sigma=sigma))) for seed in range(5)]
    assert found == [[]] * 5


def test_a_spike_is_named_with_its_length_and_the_usual_loss() -> None:
    losses = noise(0)
    losses[200:205] *= [8.0, 9.0, 5.0, 4.0, 3.0]
    losses[300] = np.nan
    spike, other = find_spikes(list(losses))
    assert (spike.index, spike.last, other.index) == (200, 204, 300)
    assert spike.usual == pytest.approx(np.median(losses[100:200]))
    assert other.deviations == np.inf


def test_the_losses_of_another_phase_are_not_compared() -> None:
    losses = [*(0.1 * noise(1, 100)), *(3.0 * noise(2, 100))]
    assert [each.index for each in find_spikes(losses)] == [100]
    assert find_spikes(losses, [100]) == []


def test_negative_losses_have_spikes_too() -> None:
    losses = list(-5.0 + 0.1 * np.random.default_rng(3).standard_normal(200))
    losses[150] = 4.0
    assert [each.index for each in find_spikes(losses)] == [150]


# The batch of a step


class Steps(Callback):
    """Records what each step was made with."""

    def __init__(self, stop: int | None = None) -> None:
        self.indices: dict[int, list[int]] = {}
        self.values: dict[int, dict[str, float]] = {}
        self.stop = stop

    def step(self, model: nn.Module, batches: list[Batch], task: Any, step: Any) -> Any:
        self.current = [int(i) for batch in batches for i in batch.indices]  # type: ignore[union-attr]
        return train_step(model, batches, task, step)

    def on_step_end(self, state: TrainState) -> None:
        self.indices[state.position.step - 1] = self.current
        self.values[state.position.step - 1] = dict(state.values)
        if self.stop == state.position.step:
            raise KeyboardInterrupt


def table(n: int = 90) -> TensorData:
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    return TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=0.2)


def make(steps: Steps, folder: Path | None = None, **options: Any) -> Learner:
    callbacks = [steps, *options.pop("callbacks", [])]
    choices = {"lr": 0.05, "probe": "off", "batch_size": 8, **options.pop("choices", {})}
    return Learner(
        options.pop("data", None) or table(),
        nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)),
        choices=choices,
        training=TrainingOptions(doctor=False, train_step=steps.step, **options),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def find_step(learner: Learner, fit: FitSteps, step: int) -> FitStep | str:
    inputs = inputs_of_fit(learner._setup(), fit)
    assert isinstance(inputs, FitInputs)
    return inputs.find_step(step)


RUNS: dict[str, Callable[[Learner], object]] = {
    "epochs": lambda learner: learner.fit(3),
    "two fits": lambda learner: (learner.fit(2), learner.fit(1, lr=0.01)),
    "steps, then epochs": lambda learner: (learner.fit(steps=13), learner.fit(1)),
    "evaluations within epochs": lambda learner: learner.fit(3, evaluate_every=4),
    "phases": lambda learner: learner.fine_tune(2),
}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", RUNS)
def test_the_batch_and_the_values_of_every_step_are_found(name: str, accumulate: int) -> None:
    steps = Steps()
    learner = make(steps, accumulate=accumulate)
    RUNS[name](learner)
    assert len(steps.indices) == learner.history.n_steps > 10
    for step, indices in steps.indices.items():
        fit = fit_of_step(learner._fits, step)
        assert fit is not None
        made = find_step(learner, fit, step)
        assert isinstance(made, FitStep)
        found = [int(i) for batch in made.micro_batches() for i in batch.indices]  # type: ignore[union-attr]
        assert found == indices, step
    last = max(steps.indices)
    replayed = learner.step_through(LossSpike(last, 1.0, 0.1, 9.0))
    values = replayed.of("values")[0].value
    assert {name: values[name] for name in ("lr",)} == pytest.approx(
        {"lr": steps.values[last]["lr"]}
    )


def test_a_spike_names_its_samples_and_is_made_again(tmp_path: Path) -> None:
    x = torch.randn(320, 5, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    x[7] *= 50.0
    y[7] = 1 - y[7]
    steps = Steps()
    data = TensorData.from_tensors(x, y)
    kept = Checkpointing(keep=9, at_epoch_end=True)
    learner = make(steps, tmp_path / "run", data=data, choices={"lr": 0.02}, callbacks=[kept])
    learner.fit(4)
    spike = learner.loss_spikes()[0]
    assert 7 in spike.samples
    assert list(spike.samples) == steps.indices[spike.step]
    assert (spike.epoch, spike.epoch_step) == divmod(spike.step, 32)
    assert spike.loss == learner.history.step_losses[spike.step] > 5 * spike.usual
    assert spike.checkpoint is not None
    assert checkpoint_step(spike.checkpoint) == 32
    stages = learner.step_through(spike)
    [inputs] = [stage for stage in stages.all if stage.name == "input input"]
    assert float(inputs.value.abs().max()) > 20  # the row of sample 7
    assert stages.of("values")[0].value["lr"] == pytest.approx(steps.values[spike.step]["lr"])
    assert "The weights are those that the model has now" in stages.all[0].note
    assert str(spike.step) in str(learner.loss_spikes())


def test_the_samples_of_a_resumed_run_are_found(tmp_path: Path) -> None:
    steps = Steps(stop=14)
    learner = make(steps, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        learner.fit(3)
    steps.stop = None
    other = make(steps)
    other.resume(tmp_path / "run")
    assert other.history.n_steps == len(steps.indices) == 27
    for step, indices in steps.indices.items():
        made = find_step(other, other._fits[0], step)
        assert isinstance(made, FitStep)
        [batch] = made.micro_batches()
        assert batch.indices is not None
        assert list(map(int, batch.indices)) == indices


def test_steps_of_another_learner_are_unknown() -> None:
    learner = make(Steps())
    losses = [1.0] * 40
    losses[30] = 9.0
    learner.history.add_step_losses(losses)
    spike = learner.loss_spikes()[0]
    assert (spike.step, spike.samples, spike.epoch) == (30, (), None)
    assert "another one trained the model before" in spike.note
    with pytest.raises(InputError, match="Step 30 cannot be made again: this learner has not"):
        learner.step_through(spike)


def test_the_samples_of_a_user_defined_loader_are_unknown() -> None:
    x = torch.randn(64, 5)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=2, shuffle=True)
    data = TensorData.from_loaders(loader, None, class_names=["a", "b"])
    learner = Learner(data, nn.Linear(5, 2), choices={"lr": 0.1, "probe": "off"}, quiet=True)
    learner.fit(1)
    learner.history.step_losses[30] = 50.0
    spike = learner.loss_spikes()[0]
    assert (spike.step, spike.samples) == (30, ())
    assert spike.note.startswith("Samples unknown: ")


def spiky(*places: int) -> Learner:
    learner = make(Steps())
    learner.fit(9)
    for place in places:
        learner.history.step_losses[place] = 50.0 + place
    return learner


def test_the_loader_of_a_fit_is_built_once_for_all_its_spikes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner, made = spiky(25, 45, 65), []
    inner = fit_steps.run_inputs
    monkeypatch.setattr(fit_steps, "run_inputs", lambda *a, **b: made.append(a) or inner(*a, **b))
    spikes = learner.loss_spikes()
    assert [each.step for each in spikes] == [25, 45, 65]
    assert all(each.samples for each in spikes)
    assert len(made) == 1


def test_a_sample_that_cannot_be_read_again_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: FitStep) -> Any:
        raise InputError("cat.jpg does not exist.")

    learner = spiky(25)
    monkeypatch.setattr(FitStep, "micro_batches", gone)
    [spike] = learner.loss_spikes()
    assert (spike.step, spike.samples) == (25, ())
    assert spike.note == "Samples unknown: cat.jpg does not exist."


def test_the_plan_is_applied_again_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, applied = spiky(25), []
    spike = learner.loss_spikes()[0]
    inner = BuiltPlan.apply
    monkeypatch.setattr(
        BuiltPlan, "apply", lambda self, values: applied.append(values) or inner(self, values)
    )

    def fails(*_: object, **__: object) -> Any:
        raise RuntimeError("interrupted")

    for place in (FitInputs, "find_step"), (FitStep, "micro_batches"):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="interrupted"):
            patch.setattr(*place, fails)
            learner.loss_spikes()
        assert applied[-1] == learner.plan.values
        applied.append({})
    monkeypatch.setattr(FitInputs, "find_step", fails)
    with pytest.raises(RuntimeError, match="interrupted"):
        learner.step_through(spike)
    assert applied[-1] == learner.plan.values


def test_losses_that_were_merged_name_no_single_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flambeau.training.history.MAX_STEP_LOSSES", 64)
    learner = make(Steps())
    losses = [1.0] * 100
    losses[90] = 9.0
    learner.history.add_step_losses(losses)
    spike = learner.loss_spikes()[0]
    assert (spike.step, spike.steps, spike.loss) == (90, 2, 5.0)
    assert "one loss for 2 steps" in spike.note


def test_no_spike_is_said_and_the_plot_is_written(tmp_path: Path) -> None:
    learner = make(Steps())
    learner.fit(1)
    spikes = learner.loss_spikes()
    assert str(spikes) == "No loss spike in 9 steps."
    spikes.plot(tmp_path / "losses.png")
    assert (tmp_path / "losses.png").exists()


def test_the_fit_command_prints_spikes_and_is_silent_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    learner = make(Steps())
    learner.fit(3)
    _report_spikes(learner)
    assert capsys.readouterr().out == ""
    learner.history.step_losses[25] = 50.0
    _report_spikes(learner)
    text = capsys.readouterr().out
    assert text.startswith("\nLoss spikes:\nstep")
    assert "  25      3" in text


def test_losses_of_zero_are_no_spikes() -> None:
    assert find_spikes([0.0] * 60) == []
    assert find_spikes([0.0] * 40 + [1e-9] + [0.0] * 10) == []
    [found] = find_spikes([0.0] * 40 + [1e-2] + [0.0] * 10)
    assert (found.index, found.last, found.usual) == (40, 40, 0.0)
