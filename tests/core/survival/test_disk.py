"""A full disk and a read-only folder: a clear error, and nothing lost that was there."""

from __future__ import annotations

import os
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Callback, Checkpointing, FlambeauWarning, Learner, Predictor, TensorData
from flambeau.artefact.checkpoint_files import load_latest_checkpoint
from flambeau.errors import StorageError

MEGABYTE = 1 << 20


class Disk:
    """A small file system of its own; ``fill`` leaves no byte on it, ``free`` gives all back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            for size in (65_536, 4096, 512, 1):
                while True:
                    try:
                        file.write(b"\0" * size)
                    except OSError:
                        break

    def free(self) -> None:
        self._ballast.unlink()

    def mount(self, options: str) -> None:
        call = ["mount", "-t", "tmpfs", "-o", options, "none", str(self.folder)]
        try:
            done = subprocess.run(call, check=False, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command here, so no small disk can be made")
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")

    def mount_again(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """One megabyte, mounted; needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = Disk(folder)
    disk.mount("size=1m")
    yield disk
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond ``n_bytes``: a full disk that needs no rights."""
    resource = pytest.importorskip("resource", reason="no limits of files on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class At(Callback):
    """Does something once, after a step."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.step:
            self.action()


def new_learner(folder: Path | None, *callbacks: Callback) -> Learner:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=draws)
    torch.manual_seed(7)
    return Learner(
        TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=20),
        # 100 kB of weights, 300 kB a checkpoint with Adam's moments: three fit on the disk.
        nn.Sequential(nn.Linear(6, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 2)),
        choices={"batch_size": 10},
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def whole_run() -> Learner:
    torch.manual_seed(3)
    learner = new_learner(None)
    learner.fit(4)
    return learner


def same(one: Learner, other: Learner) -> bool:
    losses = list(one.history.step_losses) == list(other.history.step_losses)
    return losses and all(
        torch.equal(a, b)
        for a, b in zip(
            one.model.state_dict().values(), other.model.state_dict().values(), strict=True
        )
    )


def test_by_default_training_continues_with_the_last_checkpoint(disk: Disk) -> None:
    folder = disk.folder / "run"
    torch.manual_seed(3)
    learner = new_learner(folder, At(6, disk.fill))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner.fit(4)
    assert same(learner, whole_run())
    texts = [str(w.message) for w in caught if issubclass(w.category, FlambeauWarning)]
    saves = [text for text in texts if text.startswith("[checkpoint-not-saved]")]
    assert len(saves) == 3  # the ends of epochs 2, 3 and 4; rows found some room
    [other] = set(texts) - set(saves)
    assert other.startswith("[run-not-recorded]")
    assert "disk is full" in saves[0]
    assert re.search(r"\([0-9.]+ k?B free on ", saves[0])
    assert "Training continues" in saves[0]
    found = load_latest_checkpoint(folder)
    assert found is not None
    assert found[0].name == "step-00000004"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "history.csv",
        "run.json",  # as it was written at the start
    ]
    assert len(list((folder / "checkpoints").iterdir())) == 1
    # The same run, had it been killed there.
    disk.free()
    resumed = new_learner(folder)
    resumed.resume()
    assert same(resumed, learner)
    assert len((folder / "history.csv").read_text().splitlines()) == 5


def test_on_request_the_run_ends_with_its_state_kept(disk: Disk) -> None:
    folder = disk.folder / "run"
    torch.manual_seed(3)
    stops = Checkpointing(on_error="raise")
    learner = new_learner(folder, At(6, disk.fill), stops)
    with pytest.raises(StorageError, match=r"disk is full.*Free disk space") as caught:
        learner.fit(4)
    [note] = caught.value.__notes__
    assert "The last checkpoint" in note
    assert "is of step 4; the state at the end was not saved, because saving failed" in note
    assert "learner.resume(" in note
    # The model has the weights of epoch 2, at whose end it stopped.
    assert len(learner.history.rows) == 2
    assert learner.evaluate()["loss"] == pytest.approx(learner.history.rows[1]["valid_loss"])
    disk.free()
    resumed = new_learner(folder)
    resumed.resume()
    assert same(resumed, whole_run())


def test_a_file_size_limit_is_handled_like_a_full_disk(tmp_path: Path) -> None:
    torch.manual_seed(3)
    learner = new_learner(tmp_path / "run", Checkpointing(on_error="raise"))
    with (
        file_size_limit(5_000),
        pytest.warns(FlambeauWarning, match="run-not-recorded"),
        pytest.raises(StorageError, match="disk is full or a quota"),
    ):
        learner.fit(4)
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    assert learner.history.rows[0]["epoch"] == 1


def test_a_disk_that_is_full_from_the_start(disk: Disk) -> None:
    disk.fill()
    folder = disk.folder / "run"
    learner = new_learner(folder)
    with pytest.warns(FlambeauWarning) as caught:
        learner.fit(1)
    texts = sorted(str(warning.message) for warning in caught)
    codes = [text.split("]")[0] for text in texts]
    assert codes == ["[checkpoint-not-saved", "[history-not-written", "[run-not-recorded"]
    assert f"Cannot write {folder / 'history.csv'}: the disk is full" in texts[1]
    assert len(learner.history.rows) == 1
    assert load_latest_checkpoint(folder) is None
    left = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    assert left == []


def test_an_export_is_atomic(disk: Disk) -> None:
    learner = new_learner(None)
    learner.fit(1)
    target = disk.folder / "export"
    learner.export(target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    disk.fill()
    learner.fit(1)
    with pytest.raises(StorageError, match=r"Cannot write .*export: the disk is full"):
        learner.export(target)
    with pytest.raises(StorageError, match="the disk is full"):
        learner.save(disk.folder / "weights")
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    Predictor.load(target, model=learner.model).predict(torch.zeros(3, 6))
    assert sorted(path.name for path in disk.folder.iterdir()) == ["ballast", "export"]
    with pytest.raises(StorageError, match="the disk is full"):
        learner.export(disk.folder / "new")
    assert not (disk.folder / "new").exists()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder in which nothing can be written, whoever asks."""
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    # Root may write anywhere but on a file system that is read-only.
    Disk(folder).mount("size=1m,ro")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_folder(read_only: Path) -> None:
    message = r"Cannot write .*: .* is read-only or you lack permission .*Choose a folder"
    with pytest.raises(StorageError, match=message):
        new_learner(read_only / "run").fit(1)
    learner = new_learner(None)
    learner.fit(1)
    for write in (learner.export, learner.save):
        with pytest.raises(StorageError, match=message):
            write(read_only / "export")


def test_a_folder_that_becomes_read_only(disk: Disk) -> None:
    folder = disk.folder / "run"
    torch.manual_seed(3)
    learner = new_learner(folder, At(6, lambda: disk.mount_again("ro")))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner.fit(4)
    assert same(learner, whole_run())
    assert any("read-only or you lack" in str(w.message) for w in caught)
    disk.mount_again("rw")
    resumed = new_learner(folder)
    resumed.resume()
    assert same(resumed, learner)
