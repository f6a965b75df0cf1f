"""Checkpointing: when it saves, and what it says when a run breaks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau.artefact.checkpoint import checkpoint_step, latest_checkpoint, load_checkpoint
from flambeau.callbacks import Checkpointing, checkpointing
from flambeau.errors import (
    ArgumentError,
    FlambeauWarning,
    InputError,
    NonFiniteError,
    StorageError,
)
from flambeau.training.state import TrainState

NewState = Callable[..., TrainState]


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps at which a checkpoint was written; nothing is written."""
    steps: list[int] = []

    def save(folder: Path, tree: Any, step: int, keep: int) -> Path:
        steps.append(step)
        return Path(folder)

    monkeypatch.setattr(checkpointing, "save_checkpoint", save)
    return steps


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """A clock on which each look takes ten seconds."""
    now = [0.0]

    def monotonic() -> float:
        now[0] += 10.0
        return now[0]

    monkeypatch.setattr(checkpointing.time, "monotonic", monotonic)
    return monotonic


def test_the_end_of_each_epoch(
    saved: list[int], tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    fit([Checkpointing()], new_state(tmp_path))
    assert saved == [3, 6]


def test_every_so_many_seconds(
    saved: list[int], clock: Any, tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    # Looks: start at 10 s, steps at 20, 30, 40 (saved; 50 after saving), 60, 70, 80 (saved).
    fit([Checkpointing(every_s=30.0, at_epoch_end=False)], new_state(tmp_path))
    assert saved == [3, 6]
    saved.clear()
    fit([Checkpointing(every_s=None, at_epoch_end=False)], new_state(tmp_path))
    assert saved == []


def test_what_is_saved_and_kept(tmp_path: Path, new_state: NewState, fit: Any) -> None:
    state = fit([Checkpointing(every_s=1e-9, keep=2)], new_state(tmp_path))
    steps = sorted(checkpoint_step(path) for path in (tmp_path / "checkpoints").iterdir())
    assert steps == [5, 6]
    tree = load_checkpoint(latest_checkpoint(tmp_path))
    assert tree["step"] == 6
    assert torch.equal(tree["model"]["0.weight"], state.model.state_dict()["0.weight"])


class Breaks(checkpointing.Callback):
    """Raises ``error`` at the border after step 4."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_step_end(self, state: TrainState) -> None:
        if state.position.step == 4:
            raise self.error


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path: Path, new_state: NewState, fit: Any) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        fit([Breaks(KeyboardInterrupt()), Checkpointing()], new_state(tmp_path))
    assert checkpoint_step(latest_checkpoint(tmp_path)) == 4
    assert caught.value.__notes__ == [
        f"A checkpoint of step 4 is in {tmp_path}. Continue with learner.resume({str(tmp_path)!r})."
    ]


def test_inside_a_step_the_last_checkpoint_stays_the_last(
    tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    with pytest.raises(ValueError, match="a broken batch") as caught:
        fit([Checkpointing()], new_state(tmp_path), fail_at=4)
    assert checkpoint_step(latest_checkpoint(tmp_path)) == 3
    [note] = caught.value.__notes__
    assert "The last checkpoint" in note
    assert "is of step 3 (the exception came inside a step" in note
    assert "learner.resume(" in note


def test_without_a_checkpoint_it_says_so(tmp_path: Path, new_state: NewState, fit: Any) -> None:
    with pytest.raises(ValueError, match="a broken batch") as caught:
        fit([Checkpointing()], new_state(tmp_path), fail_at=1)
    assert caught.value.__notes__[0].startswith("There is no checkpoint to resume from: the exc")


def test_an_older_run_in_the_folder(tmp_path: Path, new_state: NewState, fit: Any) -> None:
    fit([Checkpointing()], new_state(tmp_path))
    with pytest.raises(ValueError, match="a broken batch") as caught:
        fit([Checkpointing()], new_state(tmp_path), fail_at=1)
    assert "is older than this run" in caught.value.__notes__[0]


def test_a_step_that_is_not_finite_is_not_saved(
    saved: list[int], tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    with pytest.raises(NonFiniteError) as caught:
        fit([Breaks(NonFiniteError("nan")), Checkpointing()], new_state(tmp_path))
    assert saved == [3]
    assert len(caught.value.__notes__) == 1


def test_the_first_exception_is_the_one_that_is_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    def full(*arguments: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(checkpointing, "save_checkpoint", full)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit([Breaks(KeyboardInterrupt()), Checkpointing(at_epoch_end=False)], new_state(tmp_path))
    assert caught.value.__notes__ == [
        "There is no checkpoint to resume from: saving failed: the disk is full."
    ]


def test_a_full_disk_ends_no_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    def full(*arguments: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(checkpointing, "save_checkpoint", full)
    with pytest.warns(FlambeauWarning, match=r"checkpoint-not-saved\] the disk is full Training"):
        state = fit([Checkpointing()], new_state(tmp_path))
    assert state.position.step == 6


def test_on_request_a_full_disk_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    def full(*arguments: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(checkpointing, "save_checkpoint", full)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        fit([Checkpointing(on_error="raise")], new_state(tmp_path))
    assert caught.value.__notes__[0].startswith("There is no checkpoint to resume from: saving f")


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match=r"on_error is 'rais'. Did you mean 'raise'"):
        Checkpointing(on_error="rais")
    with pytest.raises(InputError, match="every_s is a time in seconds or None, not 0"):
        Checkpointing(every_s=0)
    with pytest.raises(InputError, match="keep must be 1 or more checkpoints, not 0"):
        Checkpointing(keep=0)
