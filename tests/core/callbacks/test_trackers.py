"""Trackers, with a library of this file: rate, plan, resume, errors, several processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from flambeau import EMA, Callback, FlambeauWarning, Learner, TensorData, TrainingOptions
from flambeau.callbacks.trackers import (
    MLflowTracker,
    TensorBoardTracker,
    Tracker,
    TrackioTracker,
    WandbTracker,
)
from flambeau.errors import MissingDependencyError
from flambeau.training.events import EVENTS
from flambeau.training.state import TrainState

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorData.from_tensors(X, (X[:, 0] > 0).long(), valid=20)


class ListTracker(Tracker):
    """Logs to a list; fails in the given method."""

    module, package = "json", "none"

    def __init__(self, fails_in: str = "") -> None:
        super().__init__()
        self.fails_in = fails_in
        self.calls: list[tuple[Any, ...]] = []

    def _call(self, *values: Any) -> None:
        self.calls.append(values)
        if values[0] == self.fails_in:
            raise ConnectionError("no route to the server")

    def start(self, state: TrainState, parameters: Mapping[str, Any]) -> str:
        self._call("start", self.run_id, dict(parameters))
        return self.run_id or f"log-{len(self.calls)}"

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._call("log", dict(values), step)

    def finish(self, outcome: str) -> None:
        self._call("finish", outcome)


class StopsAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.step:
            raise KeyboardInterrupt


def make(*callbacks: Callback, folder: Path | None = None, **more: Any) -> Learner:
    choices = {"batch_size": 20, "probe": "off", "lr": 0.01}
    return Learner(DATA, choices=choices, folder=folder, callbacks=callbacks, quiet=True, **more)


def test_each_row_is_logged_once_with_the_plan_at_the_start() -> None:
    tracker = ListTracker()
    options = TrainingOptions(average=EMA())
    learner = make(tracker, training=options, seed=3)
    learner.fit(2)
    (_, run_id, parameters), *rows, end = tracker.calls
    assert run_id is None
    assert parameters["lr"] == 0.01
    assert parameters["batch_size"] == 20
    assert parameters["seed"] == 3
    assert "EMA" in parameters["option.average"]
    assert set(learner.plan.values) <= set(parameters)
    for (_, values, step), row in zip(rows, learner.history.rows, strict=True):
        assert step == row["step"]
        assert values["valid_loss"] == row["valid_loss"]
        assert values["lr"] == row["lr"]
        assert "phase" not in values  # text
    assert end == ("finish", "finished")


def test_nothing_happens_in_a_step() -> None:
    for kind in (TensorBoardTracker, WandbTracker, MLflowTracker, TrackioTracker):
        listens = {e for e in EVENTS if getattr(kind, e) is not getattr(Callback, e)}
        assert listens == {"on_fit_start", "on_epoch_end", "on_fit_end", "on_exception"}
        assert not kind.every_process  # rank 0 logs


def test_a_resumed_run_and_a_further_fit_continue_the_log(tmp_path: Path) -> None:
    tracker = ListTracker()
    with pytest.raises(KeyboardInterrupt):
        make(tracker, StopsAt(3), folder=tmp_path).fit(2)
    assert tracker.calls[-1] == ("finish", "interrupted")
    again = ListTracker()
    learner = make(again, folder=tmp_path)
    learner.resume()
    assert again.calls[0][1] == tracker.run_id
    assert [call[2] for call in again.calls if call[0] == "log"] == [4]
    learner.fit(1)
    assert [call[1] for call in again.calls if call[0] == "start"] == [tracker.run_id] * 2
    # Another learner makes a log of its own.
    make(again).fit(1)
    assert [call[1] for call in again.calls if call[0] == "start"][-1] is None


@pytest.mark.parametrize("verb", ["start", "log", "finish"])
def test_a_tracker_that_fails_costs_its_log_not_the_training(verb: str, tmp_path: Path) -> None:
    tracker = ListTracker(verb)
    learner = make(tracker, folder=tmp_path)
    with pytest.warns(FlambeauWarning, match=rf"could not {verb}: ConnectionError: no route") as w:
        learner.fit(3)
    assert len(w) == 1
    assert len(learner.history.rows) == 3
    assert sum(call[0] == verb for call in tracker.calls) == 1
    plain = make()
    plain.fit(3)
    assert plain.history.step_losses == learner.history.step_losses


@pytest.mark.parametrize("verb", ["start", "log"])
def test_a_log_that_failed_is_closed_at_the_end_of_the_fit(verb: str) -> None:
    tracker = ListTracker(verb)
    learner = make(tracker)
    with pytest.warns(FlambeauWarning, match="tracker-failed"):
        learner.fit(2)
    assert tracker.calls[-1] == ("finish", "finished")
    assert sum(call[0] == "finish" for call in tracker.calls) == 1
    # The next fit logs again.
    tracker.fails_in = ""
    tracker.calls.clear()
    learner.fit(1)
    assert [call[0] for call in tracker.calls] == ["start", "log", "finish"]


def test_an_error_while_a_failed_log_is_closed_is_ignored() -> None:
    class NeverCloses(ListTracker):
        def finish(self, outcome: str) -> None:
            raise ConnectionError("still no route")

    with pytest.warns(FlambeauWarning, match="could not log") as found:
        make(NeverCloses("log")).fit(2)
    assert len(found) == 1


def test_a_tracker_without_all_three_methods_is_refused() -> None:
    class Half(Tracker):
        module, package = "json", "none"

        def start(self, state: TrainState, parameters: Mapping[str, Any]) -> str:
            return "log"

    with pytest.raises(TypeError, match="log"):
        Half()  # type: ignore[abstract]


class FakeWandb(ModuleType):
    """wandb with one active run; a row with a step below the last one is dropped, as there."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.run: Any = None
        self.started: list[FakeRun] = []

    def init(self, **more: Any) -> FakeRun:
        self.run = FakeRun(self)
        self.started.append(self.run)
        return self.run


class FakeRun:
    def __init__(self, api: FakeWandb) -> None:
        self.api, self.id = api, f"run-{len(api.started)}"
        self.rows: list[dict[str, Any]] = []
        self.axes: dict[str, str] = {}
        self.step, self.fails = 0, False
        self.config = SimpleNamespace(update=lambda *_, **__: None)

    def define_metric(self, name: str, step_metric: str) -> None:
        self.axes[name] = step_metric

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        if self.fails:
            raise ConnectionError("no route to the server")
        if step is not None and step < self.step:
            return
        self.step = (self.step if step is None else step) + 1
        self.rows.append(values)

    def finish(self, exit_code: int) -> None:
        self.api.run = None


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    found = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", found)
    return found


def test_two_learners_log_every_row_to_the_users_wandb_run(wandb: FakeWandb) -> None:
    run = wandb.init()
    for _ in range(2):
        make(WandbTracker("p")).fit(2)
    assert wandb.run is run  # it stays open
    assert [row["step"] for row in run.rows] == [2, 4, 2, 4]
    assert run.axes["valid_loss"] == "step"
    assert "step" not in run.axes


def test_a_wandb_run_whose_log_failed_is_finished(wandb: FakeWandb) -> None:
    class Breaks(Callback):
        def on_step_end(self, state: Any) -> None:
            wandb.started[0].fails = True

    learner = make(WandbTracker("p"), Breaks())
    with pytest.warns(FlambeauWarning, match="could not log"):
        learner.fit(2)
    assert wandb.run is None
    learner.fit(1)
    assert len(wandb.started) == 2
    assert wandb.run is None


def test_a_failed_run_is_closed_as_failed() -> None:
    class Fails(Callback):
        def on_epoch_end(self, state: Any) -> None:
            raise OSError("disk")

    tracker = ListTracker()
    with pytest.raises(OSError, match="disk"):
        make(tracker, Fails()).fit(1)
    assert tracker.calls[-1] == ("finish", "failed")


@pytest.mark.parametrize(
    ("make_tracker", "module", "package"),
    [
        (TensorBoardTracker, "torch.utils.tensorboard", "tensorboard"),
        (lambda: WandbTracker("p"), "wandb", "wandb"),
        (lambda: MLflowTracker("e"), "mlflow", "mlflow"),
        (lambda: TrackioTracker("p"), "trackio", "trackio"),
    ],
)
def test_a_missing_library_names_the_package(
    make_tracker: Any, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=f"Install it: pip install {package}"):
        make_tracker()


def test_the_libraries_are_imported_only_by_their_tracker() -> None:
    code = (
        "import sys; import flambeau.callbacks.trackers; "
        "print([m for m in ('tensorboard', 'wandb', 'mlflow', 'trackio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
