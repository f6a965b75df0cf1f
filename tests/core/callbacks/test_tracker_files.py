"""What each tracker has written, opened by the reader of its library.

The libraries are in an environment of their own, because some of their dependencies exclude the
newest releases that the workspace uses: `make trackers` runs this file there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau import Callback, Learner, TensorData
from flambeau.callbacks.trackers import (
    MLflowTracker,
    TensorBoardTracker,
    Tracker,
    WandbTracker,
)
from flambeau.training.history import History

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the libraries

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorData.from_tensors(X, (X[:, 0] > 0).long(), valid=20)
HERE = "needs the environment of `make trackers`"

Points = dict[int, float]
"""Values by step."""


class StopsAt(Callback):
    def on_step_end(self, state: Any) -> None:
        if state.position.step == 5:
            raise KeyboardInterrupt


def run_twice(folder: Path, new: Callable[[], Tracker]) -> tuple[Learner, Tracker]:
    """Interrupt a run of three epochs in the third, and resume it with another tracker."""

    def make(*more: Callback) -> tuple[Learner, Tracker]:
        tracker = new()
        choices = {"batch_size": 20, "probe": "off", "lr": 0.01}
        callbacks = [tracker, *more]
        return (
            Learner(DATA, choices=choices, folder=folder, callbacks=callbacks, quiet=True),
            tracker,
        )

    learner, first = make(StopsAt())
    with pytest.raises(KeyboardInterrupt):
        learner.fit(3)
    learner, second = make()
    learner.resume()
    assert first.run_id == second.run_id
    return learner, second


def expected(history: History, column: str) -> Points:
    return {int(row["step"]): float(row[column]) for row in history.rows}


def check(found: Points, history: History, column: str = "valid_loss") -> None:
    wanted = expected(history, column)
    assert list(wanted) == [2, 4, 6]
    assert found == pytest.approx(wanted, rel=1e-6)  # TensorBoard stores float32


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason=HERE)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    learner, _ = run_twice(tmp_path / "run", TensorBoardTracker)
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    read.Reload()
    for column, tag in (("valid_loss", "valid/loss"), ("train_loss", "train/loss"), ("lr", "lr")):
        points = [(event.step, event.value) for event in read.Scalars(tag)]
        assert [step for step, _ in points] == [2, 4, 6]
        check(dict(points), learner.history, column)
    text = read.Tensors("plan/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| lr | 0.01 |" in text
    assert "| batch_size | 20 |" in text
    assert read.PluginTagToContent("hparams")


def test_tensorboard_of_a_run_that_was_moved(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason=HERE)
    old, new = tmp_path / "old", tmp_path / "new"

    def make(folder: Path, *more: Callback) -> Learner:
        choices = {"batch_size": 20, "probe": "off", "lr": 0.01}
        callbacks = [TensorBoardTracker(), *more]
        return Learner(DATA, choices=choices, folder=folder, callbacks=callbacks, quiet=True)

    with pytest.raises(KeyboardInterrupt):
        make(old, StopsAt()).fit(3)
    old.rename(new)
    make(new).resume()
    assert not old.exists()
    assert len(list((new / "tensorboard").iterdir())) == 2


def wandb_records(file: Path) -> list[dict[str, Any]]:
    words = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return list(map(json.loads, text.splitlines()))


def test_wandb_run_of_the_user_has_the_rows_of_two_learners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason=HERE)
    monkeypatch.setenv("WANDB_SILENT", "true")
    choices = {"batch_size": 20, "probe": "off", "lr": 0.01}
    with wandb.init(project="pets", mode="offline", dir=str(tmp_path)) as run:
        for _ in range(2):
            Learner(DATA, choices=choices, callbacks=[WandbTracker("pets")], quiet=True).fit(2)
        assert wandb.run is run
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = wandb_records(file)
    rows = [each["history"]["item"] for each in records if each["type"] == "history"]
    assert [row["step"] for row in rows] == [2, 4, 2, 4]
    axes = [each for each in records if each["type"] == "metric"]
    assert any("valid_loss" in json.dumps(each) and '"step"' in json.dumps(each) for each in axes)


def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason=HERE)
    monkeypatch.setenv("WANDB_SILENT", "true")
    learner, tracker = run_twice(
        tmp_path / "run", lambda: WandbTracker("pets", mode="offline", folder=tmp_path)
    )
    points: Points = {}
    config: dict[str, Any] = {}
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2  # `wandb sync` joins them by their id
    codes = []
    for file in files:
        assert file.name == f"run-{tracker.run_id}.wandb"
        for record in wandb_records(file):
            if record["type"] == "history":
                step = record["history"]["step"]["num"]
                assert step not in points
                points[step] = record["history"]["item"]["valid_loss"]
            elif record["type"] == "config":
                config |= record["config"]["update"]
            elif record["type"] == "exit":
                codes.append(record["exit"]["exit_code"])
    check(points, learner.history)
    assert config["lr"] == 0.01
    assert config["batch_size"] == 20
    assert codes == [1, 0]


def test_mlflow(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason=HERE)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    learner, tracker = run_twice(tmp_path / "run", lambda: MLflowTracker("pets", tracking_uri=uri))
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("pets")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == tracker.run_id
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params["lr"] == "0.01"
    assert run.data.params["batch_size"] == "20"
    metrics = client.get_metric_history(run.info.run_id, "valid_loss")
    assert len(metrics) == 3
    check({each.step: each.value for each in metrics}, learner.history)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_mlflow_run_whose_log_fails_is_closed(
    fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason=HERE)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    write, calls = mlflow.MlflowClient.log_batch, []

    def log_batch(*args: Any, **more: Any) -> Any:  # the first call has the parameters
        calls.append(args)
        if len(calls) == fails_at:
            raise ConnectionError("no route to the server")
        return write(*args, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    tracker = MLflowTracker("pets", tracking_uri=uri)
    choices = {"batch_size": 20, "probe": "off", "lr": 0.01}
    Learner(DATA, choices=choices, callbacks=[tracker], quiet=True).fit(2)
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("pets").experiment_id])
    assert run.info.run_id == tracker.run_id
    assert run.info.status == "FINISHED"


def test_trackio(tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason=HERE)
    code = f"""
import json, os
os.environ["TRACKIO_DIR"] = {str(tmp_path / "trackio")!r}  # read when trackio is imported
from pathlib import Path
import test_tracker_files as tests
from flambeau.callbacks.trackers import TrackioTracker
learner, tracker = tests.run_twice(Path({str(tmp_path / "run")!r}), lambda: TrackioTracker("pets"))
import trackio
from trackio.sqlite_storage import SQLiteStorage
(run,) = trackio.Api().runs("pets")
assert run.name == tracker.run_id == "run", run
logs = SQLiteStorage.get_logs("pets", "run")
points = [(log["step"], log["valid_loss"]) for log in logs]
assert len(points) == 3, points
tests.check(dict(points), learner.history)
assert run.config["lr"] == 0.01
assert run.config["batch_size"] == 20
print("read")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert "read" in done.stdout.splitlines(), done.stdout + done.stderr
