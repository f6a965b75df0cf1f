"""Checkpointing: when it saves, and what it reports when a run fails."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau.artefact.checkpoint_files import checkpoint_step, latest_checkpoint, load_checkpoint
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
    """Return the list of steps that are saved; nothing is written to disk."""
    steps: list[int] = []

    def save(folder: Path, tree: Any, step: int, keep: int) -> Path:
        steps.append(step)
        return Path(folder)

    monkeypatch.setattr(checkpointing, "save_checkpoint", save)
    return steps


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """A clock that advances ten seconds with every reading."""
    now = [0.0]

    def monotonic() -> float:
        now[0] += 10.0
        return now[0]

    monkeypatch.setattr(checkpointing.time, "monotonic", monotonic)
    return monotonic


def test_every_epoch_ends_with_a_checkpoint(
    saved: list[int], tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    fit([Checkpointing()], new_state(tmp_path))
    assert saved == [3, 6]


def test_checkpoints_at_time_intervals(
    saved: list[int], clock: Any, tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    # Readings: start at 10 s, steps at 20, 30, 40 (saved; 50 after saving), 60, 70, 80 (saved).
    fit([Checkpointing(every_s=30.0, at_epoch_end=False)], new_state(tmp_path))
    assert saved == [3, 6]
    saved.clear()
    fit([Checkpointing(every_s=None, at_epoch_end=False)], new_state(tmp_path))
    assert saved == []


def test_the_newest_checkpoints_are_kept(tmp_path: Path, new_state: NewState, fit: Any) -> None:
    state = fit([Checkpointing(every_s=1e-9, keep=2)], new_state(tmp_path))
    steps = sorted(checkpoint_step(path) for path in (tmp_path / "checkpoints").iterdir())
    assert steps == [5, 6]
    tree = load_checkpoint(latest_checkpoint(tmp_path))
    assert tree["step"] == 6
    assert torch.equal(tree["model"]["0.weight"], state.model.state_dict()["0.weight"])


class Raises(checkpointing.Callback):
    """Raises ``error`` after step 4."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_step_end(self, state: TrainState) -> None:
        if state.position.step == 4:
            raise self.error


def test_ctrl_c_saves_and_names_how_to_resume(
    tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        fit([Raises(KeyboardInterrupt()), Checkpointing()], new_state(tmp_path))
    assert checkpoint_step(latest_checkpoint(tmp_path)) == 4
    assert caught.value.__notes__ == [
        f"A checkpoint of step 4 is in {tmp_path}. Continue with learner.resume({str(tmp_path)!r})."
    ]


def test_an_error_inside_a_step_saves_nothing(
    tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    with pytest.raises(ValueError, match="a damaged batch") as caught:
        fit([Checkpointing()], new_state(tmp_path), fail_at=4)
    assert checkpoint_step(latest_checkpoint(tmp_path)) == 3
    [note] = caught.value.__notes__
    assert "The last checkpoint" in note
    assert "is of step 3; the state at the end was not saved" in note
    assert "because the exception was raised inside a step" in note
    assert "learner.resume(" in note


def test_a_missing_checkpoint_is_reported(tmp_path: Path, new_state: NewState, fit: Any) -> None:
    with pytest.raises(ValueError, match="a damaged batch") as caught:
        fit([Checkpointing()], new_state(tmp_path), fail_at=1)
    assert caught.value.__notes__[0].startswith("No checkpoint to resume from: the state was not s")


def test_a_checkpoint_of_an_older_run_is_named(
    tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    fit([Checkpointing()], new_state(tmp_path))
    with pytest.raises(ValueError, match="a damaged batch") as caught:
        fit([Checkpointing()], new_state(tmp_path), fail_at=1)
    assert "is of an earlier run" in caught.value.__notes__[0]


def test_a_non_finite_step_is_not_saved(
    saved: list[int], tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    with pytest.raises(NonFiniteError) as caught:
        fit([Raises(NonFiniteError("nan")), Checkpointing()], new_state(tmp_path))
    assert saved == [3]
    assert len(caught.value.__notes__) == 1


def test_the_original_exception_is_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    def full(*arguments: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(checkpointing, "save_checkpoint", full)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit([Raises(KeyboardInterrupt()), Checkpointing(at_epoch_end=False)], new_state(tmp_path))
    assert caught.value.__notes__ == [
        "No checkpoint to resume from: the state was not saved, because saving failed: the disk is "
        "full."
    ]


def test_a_full_disk_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    def full(*arguments: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(checkpointing, "save_checkpoint", full)
    with pytest.warns(FlambeauWarning, match=r"checkpoint-not-saved\] the disk is full Training"):
        state = fit([Checkpointing()], new_state(tmp_path))
    assert state.position.step == 6


def test_a_full_disk_ends_the_run_with_on_error_raise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_state: NewState, fit: Any
) -> None:
    def full(*arguments: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(checkpointing, "save_checkpoint", full)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        fit([Checkpointing(on_error="raise")], new_state(tmp_path))
    assert caught.value.__notes__[0].endswith("because saving failed: the disk is full.")


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"Unknown on_error='rais'. Did you mean 'raise'"):
        Checkpointing(on_error="rais")
    with pytest.raises(InputError, match="must be a finite number, above 0, not 0"):
        Checkpointing(every_s=0)
    with pytest.raises(InputError, match="whole number of checkpoints, at least 1, not 0"):
        Checkpointing(keep=0)
