"""``run.json``: what a run is, when it started, and how it ended."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import EMA, Callback, FlambeauWarning, Learner, TensorData, TrainingOptions
from flambeau.callbacks.run_record import described_options
from flambeau.runs import read_run

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorData.from_tensors(X, (X[:, 0] > 0).long(), valid=20)


def make(folder: Path | None, *callbacks: Callback, **more: Any) -> Learner:
    choices = {"batch_size": 20, "probe": "off"}
    return Learner(DATA, choices=choices, folder=folder, callbacks=callbacks, quiet=True, **more)


class EndsAt(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_step_end(self, state: Any) -> None:
        if state.position.step == 3:
            raise self.error


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def test_the_record_has_plan_data_model_machine_and_end(tmp_path: Path) -> None:
    learner = make(tmp_path, seed=7)
    learner.fit(2)
    found = record(tmp_path)
    assert found["seed"] == 7
    assert found["data"] == dict(DATA.fingerprint())
    assert found["modes"]["valid_accuracy"] == "max"
    assert found["model"]["parameters"] == sum(p.numel() for p in learner.model.parameters())
    assert {"host", "cpu", "cores", "device", "python", "torch"} <= set(found["machine"])
    (fit,) = found["fits"]
    assert fit["status"] == "finished"
    assert fit["process"] == os.getpid()
    assert (fit["first_step"], fit["last_step"]) == (0, 4)
    run = read_run(tmp_path)
    assert run.status == "finished"
    assert run.plan == learner.plan
    assert run.history.rows[-1]["step"] == 4
    assert run.scores["loss"] == pytest.approx(learner.history.rows[-1]["valid_loss"])


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [(KeyboardInterrupt(), "interrupted", None), (OSError("full"), "failed", "OSError: full")],
)
def test_how_a_run_ended_and_that_it_was_resumed(
    tmp_path: Path, error: BaseException, status: str, reason: str | None
) -> None:
    with pytest.raises(type(error)):
        make(tmp_path, EndsAt(error)).fit(3)
    run = read_run(tmp_path)
    assert (run.status, run.reason) == (status, reason)
    make(tmp_path).resume()
    run = read_run(tmp_path)
    assert run.status == "finished"
    assert [fit["status"] for fit in run.fits] == [status, "finished"]
    assert run.fits[0]["started"] == run.started


def test_a_killed_run_is_interrupted_and_one_of_a_living_process_is_running(tmp_path: Path) -> None:
    make(tmp_path).fit(1)
    found = record(tmp_path)
    for process, status in ((2**22 + 5, "interrupted"), (os.getppid(), "running")):
        found["fits"][-1] |= {"status": "running", "ended": None, "process": process}
        (tmp_path / "run.json").write_text(json.dumps(found))
        assert read_run(tmp_path).status == status
    found["machine"]["host"] = "elsewhere"
    (tmp_path / "run.json").write_text(json.dumps(found))
    assert read_run(tmp_path).status == "unknown"


def test_a_killed_run_that_is_resumed_was_interrupted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, EndsAt(KeyboardInterrupt())).fit(3)
    found = record(tmp_path)
    found["fits"][-1] |= {"status": "running", "ended": None}  # as if it was killed
    (tmp_path / "run.json").write_text(json.dumps(found))
    make(tmp_path).resume()
    assert [fit["status"] for fit in read_run(tmp_path).fits] == ["interrupted", "finished"]


def test_nothing_is_written_without_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(None).fit(1)
    assert not list(tmp_path.iterdir())


def test_a_record_that_cannot_be_written_costs_only_the_record(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    learner = make(tmp_path)
    with pytest.warns(FlambeauWarning, match=r"run-not-recorded.*Training continues"):
        assert len(learner.fit(1).rows) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "history.csv", "checkpoints"}


def test_a_run_that_cannot_be_described_costs_only_the_record(tmp_path: Path) -> None:
    class NoText(nn.Linear):
        def __repr__(self) -> str:
            raise RuntimeError("no text")

    learner = Learner(
        DATA, NoText(4, 2), choices={"batch_size": 20, "probe": "off"}, folder=tmp_path, quiet=True
    )
    with pytest.warns(FlambeauWarning, match="run-not-recorded.*RuntimeError: no text"):
        learner.fit(1)
    assert len(learner.history.rows) == 1
    assert not (tmp_path / "run.json").exists()


def test_models_with_one_plan_have_other_digests(tmp_path: Path) -> None:
    nets = [nn.Sequential(nn.Linear(4, 8), act, nn.Linear(8, 2)) for act in (nn.ReLU(), nn.Tanh())]
    for name, net in zip("ab", nets, strict=True):
        Learner(DATA, net, choices={"probe": "off"}, folder=tmp_path / name, quiet=True).fit(1)
    assert record(tmp_path / "a")["model"]["digest"] != record(tmp_path / "b")["model"]["digest"]


def test_options_are_described_without_addresses() -> None:
    def my_step(model: Any, micro_batches: Any, task: Any, step: Any) -> Any: ...

    options = TrainingOptions(train_step=my_step, average=EMA(), clip_norm=1, doctor=False)
    found = described_options(options)
    assert set(found) == {"train_step", "average", "clip_norm"}
    assert "my_step" in found["train_step"]
    assert "EMA" in found["average"]
    assert not any(" at 0x" in text for text in found.values())
    assert described_options(TrainingOptions(optimizer=torch.optim.SGD)) != {}


def test_a_commit_between_two_fits_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        git("commit", "-q", "--allow-empty", "-m", name)
        make(tmp_path / name).fit(1)
        assert record(tmp_path / name)["git"]["commit"] == git("rev-parse", "HEAD")


def test_a_current_folder_that_was_removed_costs_only_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cwd() -> Path:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "cwd", cwd)
    make(tmp_path / "run").fit(1)
    assert record(tmp_path / "run")["git"] is None


def test_on_windows_no_process_is_signalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "run").fit(1)
    content = record(tmp_path / "run")
    content["fits"][-1].update(status="running", process=os.getppid())
    (tmp_path / "run" / "run.json").write_text(json.dumps(content))
    signals: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, signal: signals.append(pid))
    assert read_run(tmp_path / "run").status == "running"
    signals.clear()
    monkeypatch.setattr("flambeau.atomic_write._is_windows", lambda: True)
    assert read_run(tmp_path / "run").status == "unknown"
    assert not signals
