"""``fit_auto`` on a clock of the tests' own: budget, replanning, replay, interruption, resume."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from ctypes import c_double
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from flambeau import Callback, Data, Learner, Plan, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, InputError
from flambeau.training.step import train_step
from flambeau.tuning.auto_run import AutoRun
from flambeau.tuning.speed import measure_speed


class Machine:
    """A clock that steps and evaluations move, as fast as a test says.

    The time is no Python number, because measurements and ``resume`` restore those of a train step.
    """

    def __init__(self, step_s: float = 0.1, evaluation_s: float = 0.5) -> None:
        self._now_s = c_double(0.0)
        self.step_s, self.evaluation_s = step_s, evaluation_s
        self.steps = 0
        self.slower: Callable[[int], float] = lambda step: 1.0

    @property
    def now_s(self) -> float:
        return self._now_s.value

    @now_s.setter
    def now_s(self, value: float) -> None:
        self._now_s.value = value

    def __call__(self) -> float:
        return self.now_s

    def step(self, model, micro_batches, task, step):
        self.steps += 1
        self.now_s += self.step_s * self.slower(step.context.step)
        return train_step(model, micro_batches, task, step)

    def options(self, **more: object) -> TrainingOptions:
        return TrainingOptions(train_step=self.step, **more)


class Evaluations(Callback):
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def on_eval_end(self, state) -> None:
        self.machine.now_s += self.machine.evaluation_s


class Net(nn.Module):
    """Batch norm, dropout and a buffer that no state_dict has: what a measurement could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 3)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(self.body(x))


def net() -> Net:
    torch.manual_seed(7)
    return Net()


def data(n: int = 320, score_noise: float = 0.0) -> Data:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=draws)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    wrong = torch.rand(n, generator=draws) < score_noise
    y[wrong] = torch.randint(0, 3, (int(wrong.sum()),), generator=draws)
    return TensorData.from_tensors(x, y, valid=0.25)


def learner(machine: Machine, model: nn.Module | None = None, **more: object) -> Learner:
    options = more.pop("options", {})
    choices = {"batch_size": 20, **more.pop("choices", {})}  # 12 steps an epoch
    return Learner(
        more.pop("data", None) or data(),
        model or net(),
        training=machine.options(**options),
        callbacks=(Evaluations(machine), *more.pop("callbacks", ())),
        choices=choices,
        quiet=True,
        **more,
    )


def weights(made: Learner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("minutes", [0.2, 1.0, 3.0])
def test_the_budget_holds_and_the_schedule_ends(minutes: float) -> None:
    machine = Machine()
    made = learner(machine, choices={"epochs": 1000})
    rows = made.fit_auto(minutes, clock=machine).rows
    interval_s = made.plan["auto"].value["steps"] * machine.step_s + machine.evaluation_s
    assert machine.now_s <= 60 * minutes + interval_s
    assert machine.now_s >= 60 * minutes * 0.97 - interval_s
    assert rows[-1]["phase"] == "decay"
    assert rows[-1]["lr"] == 0.0


@pytest.mark.parametrize("slower", [3.0, 0.3])
@pytest.mark.parametrize("after", [60, 200, 450])
def test_a_machine_that_changes_its_speed_is_replanned_not_cut_off(
    after: int, slower: float
) -> None:
    machine = Machine()
    machine.slower = lambda step: slower if step >= after else 1.0
    made = learner(machine, choices={"epochs": 1000})
    rows = made.fit_auto(1.0, clock=machine).rows
    interval_s = made.plan["auto"].value["steps"] * machine.step_s * slower + machine.evaluation_s
    assert machine.now_s <= 60 + 2 * interval_s
    assert rows[-1]["lr"] == 0.0
    assert made.plan["auto"].evidence["replanned"] > 0
    rates = [row["lr"] for row in rows if row["phase"] != "warm-up"]
    assert rates == sorted(rates, reverse=True), "held, then only falling"


def test_an_epoch_longer_than_the_budget_is_divided() -> None:
    machine = Machine(step_s=10.0, evaluation_s=1.0)  # 120 s an epoch
    made = learner(machine)
    history = made.fit_auto(3.0, clock=machine)
    assert machine.now_s <= 180 + made.plan["auto"].value["steps"] * 10 + 1
    assert made.plan["auto"].value["steps"] < 12
    assert len(history.step_losses) == made.plan["auto"].evidence["steps"]
    assert history.rows[-1]["lr"] == 0.0


def test_measuring_counts_towards_the_budget() -> None:
    machine = Machine(step_s=0.1, evaluation_s=0.5)
    made = learner(machine, options={"accumulate": 2})
    parts = made.built.components()
    before, calls, state = weights(made), made.model.calls.clone(), torch.get_rng_state()
    speed = measure_speed(parts, made.training, 2.0, clock=machine)
    assert speed.step_s == pytest.approx(0.1)
    assert 20 <= speed.steps <= 24
    assert same(before, weights(made))
    assert torch.equal(made.model.calls, calls)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in made.model.parameters())


def test_a_run_without_improvement_ends_early() -> None:
    machine = Machine()
    made = learner(machine, data=data(score_noise=0.5), choices={"epochs": 20})
    history = made.fit_auto(60.0, clock=machine)
    assert machine.now_s < 600
    auto = made.plan["auto"]
    assert "Ended early" in auto.reason
    assert history.rows[-1]["lr"] == 0.0
    assert len(history.rows) == sum(segment[3] for segment in auto.value["segments"])


def test_the_model_has_the_weights_of_the_recorded_interval() -> None:
    machine = Machine()
    made = learner(machine, data=data(score_noise=0.3))
    history = made.fit_auto(2.0, clock=machine)
    kept = made.plan["auto"].value["kept"]
    row = history.rows[kept - 1]
    assert made.evaluate()["accuracy"] == pytest.approx(row["valid_accuracy"])
    best = max(history.column("valid_accuracy"))
    assert row["valid_accuracy"] >= best - 0.05
    assert row["valid_accuracy"] == made.plan["auto"].evidence["score"]


class Stream(IterableDataset):
    """Rows that cannot be had again from the middle of an epoch."""

    def __len__(self) -> int:
        return 240

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        draws = torch.Generator().manual_seed(0)
        x = torch.randn(240, 6, generator=draws)
        return iter(zip(x, (x[:, 0] > 0).long(), strict=True))


@pytest.mark.filterwarnings(r"ignore:\[lagging-statistics\]")  # of short runs on a stream
def test_a_loader_that_cannot_repeat_is_not_measured_before() -> None:
    machine = Machine()
    stream = DataLoader(Stream(), batch_size=20)
    x = torch.randn(60, 6, generator=torch.Generator().manual_seed(1))
    given = TensorData.from_loaders(stream, [(x, (x[:, 0] > 0).long())], n_classes=3)
    made = learner(machine, data=given, choices={"epochs": 1000, "batch_size": 20})
    history = made.fit_auto(1.0, clock=machine)
    assert made.plan["auto"].evidence["steps"] == len(history.step_losses) == machine.steps
    assert made.plan["auto"].value["steps"] == 12
    assert machine.now_s <= 60 + 2
    assert history.rows[-1]["lr"] == 0.0


REPLAY = """
import sys, torch
sys.path.insert(0, {folder!r})
from test_fit_auto import Machine, data, learner, net
torch.manual_seed(123)  # whatever was drawn before
made = learner(Machine(step_s=5.0), plan={plan!r}, choices={{}}, data=data(score_noise=0.2))
made.fit_auto()
torch.save(made.model.state_dict(), {to!r})
"""


@pytest.mark.slow
def test_the_saved_plan_replays_to_the_same_weights_in_a_new_process(tmp_path: Path) -> None:
    machine = Machine()
    machine.slower = lambda step: 4.0 if step > 300 else 1.0  # so that the fall is replanned
    first = learner(machine, data=data(score_noise=0.2), choices={"epochs": 1000})
    first.fit_auto(1.0, clock=machine)
    first.plan.save(tmp_path / "plan.json")
    program = REPLAY.format(
        folder=str(Path(__file__).parent), plan=str(tmp_path / "plan.json"), to=str(tmp_path / "w")
    )
    threads = f"import torch; torch.set_num_threads({torch.get_num_threads()})\n"
    subprocess.run([sys.executable, "-c", threads + program], check=True)
    assert same(weights(first), torch.load(tmp_path / "w", weights_only=True))

    again = learner(Machine(step_s=5.0), data=data(score_noise=0.2), plan=first.plan)
    again.fit_auto()
    assert same(weights(first), weights(again))
    assert again.plan.values == first.plan.values
    columns = ("phase", "step", "train_loss", "valid_loss", "lr")
    for mine, theirs in zip(again.history.rows, first.history.rows, strict=True):
        assert [mine[name] for name in columns] == [theirs[name] for name in columns]


def test_an_override_takes_the_recorded_run_out_of_the_plan() -> None:
    machine = Machine()
    made = learner(machine)
    made.fit_auto(0.5, clock=machine)
    assert made.plan["auto"].value is not None
    other = Learner(data(), net(), plan=made.plan, choices={"lr": 3e-4}, quiet=True)
    assert other.plan["auto"].value is None
    assert {change.key for change in made.plan.diff(other.plan)} == {"lr", "auto"}


class Interrupting(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, state) -> None:
        if state.position.step == self.at:
            raise KeyboardInterrupt


def resumed(made: Learner, clock: Machine, monkeypatch: pytest.MonkeyPatch) -> Learner:
    taken_up = AutoRun.from_state
    with monkeypatch.context() as patch:
        patch.setattr(AutoRun, "from_state", lambda values: taken_up(values, clock))
        made.resume()
    return made


def test_ctrl_c_keeps_the_best_weights_and_resume_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    whole = learner(machine, choices={"epochs": 1000})
    whole.fit_auto(1.0, clock=machine)

    machine = Machine()
    folder = tmp_path / "run"
    cut = learner(machine, choices={"epochs": 1000}, callbacks=(Interrupting(200),), folder=folder)
    with pytest.raises(KeyboardInterrupt):
        cut.fit_auto(1.0, clock=machine)
    best = max(cut.history.column("valid_accuracy"))
    assert cut.evaluate()["accuracy"] >= best - 0.05

    later = Machine()
    later.now_s = 1e6
    more = learner(later, choices={"epochs": 1000}, folder=folder)
    resumed(more, later, monkeypatch)
    assert [row["phase"] for row in more.history.rows] == [
        row["phase"] for row in whole.history.rows
    ]
    assert same(weights(more), weights(whole))
    assert more.plan["auto"].value == whole.plan["auto"].value
    assert later.now_s - 1e6 == pytest.approx(60 - machine.now_s, abs=2.0)


def test_resuming_a_complete_run_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine()
    made = learner(machine, folder=tmp_path / "run")
    made.fit_auto(0.5, clock=machine)
    before = weights(made)
    again = learner(machine, folder=tmp_path / "run")
    rows = resumed(again, machine, monkeypatch).history.rows
    assert len(rows) == len(made.history.rows)
    assert same(before, weights(again))


def test_a_second_run_continues_and_records_only_itself() -> None:
    machine = Machine()
    made = learner(machine)
    first = len(made.fit_auto(0.5, clock=machine).rows)
    rows = made.fit_auto(0.5, clock=machine).rows
    auto = made.plan["auto"]
    assert sum(segment[3] for segment in auto.value["segments"]) == len(rows) - first
    assert rows[first + auto.value["kept"] - 1]["valid_accuracy"] == auto.evidence["score"]
    assert rows[-1]["step"] == len(made.history.step_losses)


@pytest.mark.parametrize("minutes", [0, -1, math.inf, math.nan, "3", True])
def test_an_invalid_budget_is_refused(minutes: object) -> None:
    with pytest.raises((ArgumentError, InputError), match="minutes must be a finite number"):
        learner(Machine()).fit_auto(minutes)


def test_the_recorded_choice_is_the_same_after_saving(tmp_path: Path) -> None:
    machine = Machine()
    made = learner(machine)
    assert made.plan["auto"].value is None
    made.fit_auto(0.5, clock=machine)
    auto, epochs = made.plan["auto"], made.plan["epochs"]
    assert "100 ms per step" in auto.reason
    assert auto.evidence["budget_s"] == 30.0
    assert auto.evidence["steps"] == len(made.history.step_losses)
    assert epochs.value == round(auto.evidence["steps"] / 12)
    made.plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == made.plan
