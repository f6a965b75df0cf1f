"""The folder of a run: a second run never overwrites it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau import Callback, Checkpointing, HistoryWriter, Learner, TensorData
from flambeau.errors import ArgumentError
from flambeau.learner.run_folder import new_run_folder

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorData.from_tensors(X, (X[:, 0] > 0).long(), valid=20)


def make(folder: Path | None, *callbacks: Callback) -> Learner:
    choices = {"batch_size": 20, "probe": "off"}
    return Learner(DATA, choices=choices, folder=folder, callbacks=callbacks, quiet=True)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


class Interrupt(Callback):
    def on_step_end(self, state: Any) -> None:
        if state.position.step == 3:
            raise KeyboardInterrupt


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    make(tmp_path / "finished").fit(6)
    return tmp_path / "finished"


@pytest.mark.parametrize(
    "train",
    [
        lambda learner: learner.fit(1),
        lambda learner: learner.fine_tune(1),
        lambda learner: learner.fit_auto(0.001),
    ],
)
def test_a_finished_run_is_not_overwritten(
    finished: Path, train: Callable[[Learner], object]
) -> None:
    before = files(finished)
    learner = make(finished)
    with pytest.raises(ArgumentError, match=r"already contains a run .* or --out;"):
        train(learner)
    assert files(finished) == before
    assert learner.history.rows == []


def test_an_interrupted_run_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, Interrupt()).fit(2)
    before = files(tmp_path)
    with pytest.raises(ArgumentError, match="already contains a run"):
        make(tmp_path).fit(1)
    assert files(tmp_path) == before
    assert len(make(tmp_path).resume().rows) == 2


@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_history_without_checkpoints_is_not_overwritten(tmp_path: Path, format: Any) -> None:
    without = Checkpointing(every_s=None, at_epoch_end=False)
    make(tmp_path, without, HistoryWriter(format)).fit(1)
    before = files(tmp_path)
    with pytest.raises(ArgumentError, match=f"already contains a run .history.{format}"):
        make(tmp_path, without, HistoryWriter(format)).fit(1)
    assert files(tmp_path) == before


def test_resume_does_not_write_into_the_folder_of_another_run(
    finished: Path, tmp_path: Path
) -> None:
    make(tmp_path / "other").fit(1)
    before = files(finished)
    with pytest.raises(ArgumentError, match="finished already contains a run"):
        make(finished).resume(tmp_path / "other")
    assert files(finished) == before


def test_a_learner_trains_further_in_its_own_folder(tmp_path: Path) -> None:
    learner = make(tmp_path)
    learner.fit(1)
    learner.fit(1)
    again = make(tmp_path)
    again.resume()
    again.fit(1)
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 4


def test_a_failed_start_leaves_the_folder_free(tmp_path: Path) -> None:
    class Fails(Callback):
        def on_fit_start(self, state: Any) -> None:
            raise OSError("no tracker")

    with pytest.raises(OSError, match="no tracker"):
        make(tmp_path, Fails(), Checkpointing(every_s=None)).fit(1)
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / "moved")
    make(tmp_path).fit(1)


def test_runs_of_one_second_have_different_folders() -> None:
    assert len({new_run_folder("tensors") for _ in range(20)}) == 20


def test_a_relative_folder_stays_where_the_learner_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    learner = make(Path("run"))
    learner.fit(1)
    monkeypatch.chdir("elsewhere")
    learner.fit(1)
    assert not list(Path().iterdir())
    assert (tmp_path / "run").is_dir()


def test_a_resumed_run_names_the_choices_that_it_does_not_take(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for choices, said in (({"lr": 0.5, "epochs": 7}, True), ({"lr": 0.01, "epochs": 2}, False)):
        folder = tmp_path / str(said)
        with pytest.raises(KeyboardInterrupt):
            make(folder, Interrupt()).fit(2, lr=0.01)
        learner = Learner(DATA, choices={"batch_size": 20, "probe": "off", **choices})
        rows = learner.resume(folder).rows
        assert len(rows) == 2
        assert max(row["lr"] for row in rows) <= 0.01
        line = "keeps epochs 2, lr 0.01; epochs=7, lr=0.5 in your choices is not used"
        assert (line in "".join(capfd.readouterr())) is said


def test_a_resumed_run_does_not_name_what_the_fit_has_measured(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    choices = {"batch_size": 20, "probe": "auto"}
    Learner(DATA, choices=choices, folder=tmp_path, quiet=True).fit(1)
    capfd.readouterr()
    learner = Learner(DATA, choices=choices)
    learner.resume(tmp_path)
    assert learner.plan.values["probe"] == "skipped"
    assert "is not used" not in "".join(capfd.readouterr())
