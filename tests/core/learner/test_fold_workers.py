"""``fit_folds(num_workers=…)``: the models of one after another, trained at the same time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Learner, TensorData
from flambeau.artefact.checkpoint_files import checkpoints_of
from flambeau.device import usable_cores
from flambeau.errors import ArgumentError, InputError, TrainingError
from flambeau.learner import fold_workers
from flambeau.learner.fold_result import FoldResult
from flambeau.learner.fold_workers import TorchSettings, check_num_workers, plan_of_workers
from flambeau.training.events import Callback

X = torch.randn(97, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
CHOICES = {"batch_size": 16, "lr": 0.01, "num_threads": 1, "probe": "off"}


class Noisy(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))


class FailsIn(Callback):
    """Fails in the fit with this number."""

    fits = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def on_fit_start(self, state: Any) -> None:
        FailsIn.fits += 1

    def on_epoch_end(self, state: Any) -> None:
        if FailsIn.fits == self.number:
            raise RuntimeError("planted")


def learner(folder: Path | None = None, *callbacks: Callback, **choices: Any) -> Learner:
    torch.manual_seed(0)
    data = TensorData.from_tensors(X, Y, valid=0.2, test=0.1)
    return Learner(
        data, Noisy(), choices=CHOICES | choices, callbacks=callbacks, folder=folder, quiet=True
    )


def assert_equal(one: FoldResult, other: FoldResult) -> None:
    names = [(each.fold, each.seed) for each in one.members]
    assert names == [(each.fold, each.seed) for each in other.members]
    for first, second in zip(one.members, other.members, strict=True):
        for name, value in first.model.state_dict().items():
            assert torch.equal(value, second.model.state_dict()[name]), name
        assert [row["valid_loss"] for row in first.history.rows] == [
            row["valid_loss"] for row in second.history.rows
        ]
    assert torch.equal(one.held_out.outputs, other.held_out.outputs)
    assert one.scores == other.scores


class InThisProcess:
    """Runs the jobs of an executor at once, in this process."""

    def __init__(self, *_: object, **__: object) -> None:
        self.done: list[bytes] = []

    def submit(self, function: Any, content: bytes) -> Future[None]:
        future: Future[None] = Future()
        try:
            future.set_result(function(content))
        except BaseException as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
        return future

    def shutdown(self, **_: object) -> None: ...


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_workers, "ProcessPoolExecutor", InThisProcess)


@pytest.fixture(scope="module")
def result() -> FoldResult:
    return learner().fit_folds(3, 2, epochs=2)


@pytest.mark.slow
def test_worker_processes_train_the_same_models(result: FoldResult, tmp_path: Path) -> None:
    assert_equal(result, learner(tmp_path / "folds").fit_folds(3, 2, epochs=2, num_workers=2))
    assert (tmp_path / "folds" / "fold-3-seed-1" / "weights.safetensors").exists()


def test_what_a_worker_receives_gives_the_same_models(
    result: FoldResult, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    made = learner()
    assert_equal(result, made.fit_folds(3, 2, epochs=2, num_workers=2))
    assert not made.history.rows
    assert not list(tmp_path.glob("flambeau-folds-*"))  # the temporary folder is gone


def test_a_worker_has_the_settings_of_torch(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TorchSettings] = []

    def keep(self: TorchSettings) -> None:
        seen.append(self)

    monkeypatch.setattr(TorchSettings, "apply", keep)
    before = TorchSettings.of_this_process()
    torch.set_default_dtype(torch.float64)
    try:
        learner().fit_folds(2, epochs=1, num_workers=2)
    finally:
        torch.set_default_dtype(before.dtype)
    assert seen == [replace(before, dtype=torch.float64)] * 2
    monkeypatch.undo()
    other = replace(seen[0], matmul_precision="high", is_deterministic=True, only_warns=True)
    other.apply()
    assert TorchSettings.of_this_process() == other
    before.apply()
    assert TorchSettings.of_this_process() == before


def test_finished_models_are_not_trained_again(
    result: FoldResult, here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folds"
    FailsIn.fits = 0
    with pytest.raises(RuntimeError, match="planted") as caught:
        learner(folder, FailsIn(4)).fit_folds(3, 2, epochs=2, num_workers=2)
    notes = " ".join(caught.value.__notes__)
    assert "This was a model of fold" in notes
    assert "Continue with the same call and resume=True" in notes
    trained = [path.parent.name for path in folder.glob("*/weights.safetensors")]
    assert len(trained) == 3  # those before it
    sent: list[str] = []
    inner = fold_workers._pickled
    monkeypatch.setattr(
        fold_workers, "_pickled", lambda job: sent.append(job.folder.name) or inner(job)
    )
    again = learner(folder).fit_folds(3, 2, epochs=2, resume=True, num_workers=2)
    assert_equal(result, again)
    assert set(sent) == {f"fold-{f}-seed-{s}" for f in (1, 2, 3) for s in (0, 1)} - set(trained)


def test_what_cannot_be_sent_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    class Local(Callback): ...

    with pytest.raises(InputError, match=r"cannot be sent to a worker process: .*num_workers=0"):
        learner(None, Local()).fit_folds(3, num_workers=2)


def test_a_worker_that_ends_is_explained(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(content: bytes) -> None:
        raise BrokenProcessPool("a process in the pool was terminated abruptly")

    monkeypatch.setattr(fold_workers, "_train_job", ends)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    with pytest.raises(InputError, match="if __name__ == '__main__'"):
        learner().fit_folds(3, num_workers=2)


class TwoArgumentsError(Exception):
    """Can be pickled, but not be unpickled."""

    def __init__(self, layer: str, step: int) -> None:
        super().__init__(f"{layer} failed in step {step}")


class Raises(Callback):
    def on_step_end(self, state: Any) -> None:
        raise TwoArgumentsError("conv1", 7)


def test_an_error_that_cannot_be_sent_is_described(here: None) -> None:
    with pytest.raises(TrainingError, match=r"TwoArgumentsError: conv1 failed in step 7") as caught:
        learner(None, Raises()).fit_folds(3, num_workers=2)
    assert isinstance(caught.value.__cause__, TwoArgumentsError)


def test_classes_of_a_notebook_are_refused() -> None:
    with pytest.raises(InputError, match=r"No module named 'cell_1'.*move them to a module"):
        fold_workers._train_job(b"ccell_1\nNet\n.")


def test_a_process_that_may_not_start_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold_workers, "current_process", lambda: SimpleNamespace(daemon=True))
    with pytest.raises(InputError, match="is a worker of a pool"):
        learner().fit_folds(3, num_workers=2)
    learner().fit_folds(2, epochs=1)


SCRIPT = """
import os, sys, time
from pathlib import Path
import torch
from flambeau import Learner, TensorData
from flambeau.training.events import Callback

class Slow(Callback):
    def on_step_end(self, state):
        Path(sys.argv[1], f"pid-{os.getpid()}").touch()
        time.sleep(0.2)

if __name__ == "__main__":
    X = torch.randn(60, 4)
    data = TensorData.from_tensors(X, X[:, :1], valid=0.2)
    choices = {"batch_size": 4, "lr": 0.01, "num_threads": 1, "probe": "off"}
    learner = Learner(data, torch.nn.Linear(4, 1), choices=choices, callbacks=[Slow()],
                      folder=sys.argv[1] + "/folds", quiet=True)
    learner.fit_folds(2, epochs=100, num_workers=2)
"""


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_calling_process(tmp_path: Path, sent: signal.Signals) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, script, tmp_path], stderr=subprocess.PIPE, text=True)
    assert wait_until(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
    parent.send_signal(sent)
    _, said = parent.communicate(timeout=60)
    pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    assert wait_until(lambda: not any(is_running(pid) for pid in pids))
    if sent == signal.SIGINT:  # each model has written where it was
        assert "KeyboardInterrupt" in said
        assert "Continue with the same call and resume=True" in said
        folders = list(tmp_path.glob("folds/fold-*"))
        assert len(folders) == 2
        assert all(checkpoints_of(folder) for folder in folders)


@pytest.mark.parametrize("given", [-1, True, 1.0, "2"])
def test_a_wrong_number_of_workers_is_refused(given: Any) -> None:
    with pytest.raises(ArgumentError, match="must be a whole number of processes"):
        learner().fit_folds(3, num_workers=given)


def test_an_accelerator_is_refused() -> None:
    plan: Any = SimpleNamespace(values={"device": "cuda:0"})
    with pytest.raises(InputError, match=r"would share one device \(cuda:0\)"):
        check_num_workers(2, plan)
    check_num_workers(0, plan)


def test_the_workers_share_the_cores_and_measure_nothing() -> None:
    made = learner(None, num_threads=1)
    data = TensorData.from_tensors(X, Y, valid=0.2)
    plan = plan_of_workers(Learner(data, quiet=True).plan, 2)
    assert plan.values["num_threads"] == max(1, usable_cores() // 2)
    assert plan.values["probe"] == "off"
    assert "2 workers of fit_folds share the cores" in plan["num_threads"].reason
    kept = plan_of_workers(made.plan, 1)  # the user's choice
    assert kept.values["num_threads"] == 1


@pytest.mark.parametrize(
    ("file", "advice"),
    [("<stdin>", "<stdin> is no file: save the program in one"), (None, "The memory may")],
)
def test_the_advice_for_a_dead_worker_fits_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None, advice: str
) -> None:
    def end(*_: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(Future, "result", end)
    if file is None:
        monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    else:
        monkeypatch.setattr(sys.modules["__main__"], "__file__", file, raising=False)
    done: Future[None] = Future()
    done.set_result(None)
    with pytest.raises(InputError, match=advice) as found:
        fold_workers._finish_some({done: None}, print)
    assert "__name__" not in str(found.value)


def test_an_error_ends_the_own_workers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may have started a process since."""
    foreign = get_context("spawn").Process(target=time.sleep, args=(60,))

    def start_and_wait(*_: object) -> None:
        foreign.start()
        raise RuntimeError("a model failed")

    monkeypatch.setattr(fold_workers, "_finish_some", start_and_wait)
    with pytest.raises(RuntimeError, match="a model failed"):
        learner().fit_folds(3, num_workers=2)
    try:
        assert foreign.is_alive()
        assert multiprocessing.active_children() == [foreign]
    finally:
        foreign.terminate()
        foreign.join()
