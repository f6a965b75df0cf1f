"""SIGTERM, which schedulers send, ends a run as Ctrl-C does; what follows is the same run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from flambeau.artefact.checkpoint_files import checkpoint_step, latest_checkpoint, load_checkpoint
from flambeau.training.interrupt import deferred_interrupt


def new_job(folder: Path, loader: str = "gather") -> dict[str, Any]:
    # A checkpoint every 1,000 steps is none but at the ends of epochs.
    return {
        "kind": "run",
        "folder": str(folder),
        "loader": loader,
        "precision": "fp32",
        "every": 1000,
        "number": 0,
    }


def end(folder: Path) -> Any:
    return load_checkpoint(folder / "end" / "checkpoints" / "step-00000000")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_between_steps_and_names_the_resume(
    here: Any, difference: Any, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "run"
    job = new_job(folder)
    kill = {"event": "on_gradients_ready", "step": 12, "signal": name}
    assert here.run({**job, "kill": kill}) == 3
    error = (folder / "error-0.txt").read_text()
    assert "KeyboardInterrupt" in error
    assert f"A checkpoint of step 13 is in {folder}" in error  # step 12 is finished first
    assert "learner.resume(" in error
    newest = latest_checkpoint(folder)
    assert newest is not None
    assert checkpoint_step(newest) == 13
    assert here.run({**job, "number": 1}) == 0
    assert here.run(new_job(tmp_path / "whole")) == 0
    assert difference(end(tmp_path / "whole"), end(folder)) is None


def test_a_signal_after_the_last_step_is_not_lost(
    here: Any, difference: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    kill = {"event": "on_epoch_end", "step": 31, "signal": "SIGTERM"}
    assert here.run({**new_job(folder), "kill": kill}) == 3
    assert "A checkpoint of step 32" in (folder / "error-0.txt").read_text()
    assert here.run({**new_job(folder), "number": 1}) == 0
    assert here.run(new_job(tmp_path / "whole")) == 0
    assert difference(end(tmp_path / "whole"), end(folder)) is None


@pytest.mark.slow
def test_a_signal_to_all_processes_with_workers(
    servers: Any, after: Any, difference: Any, tmp_path: Path
) -> None:
    """A scheduler signals every process of a job: the workers must outlive the main one's step."""
    [server] = servers(1)
    assert server.run(new_job(tmp_path / "whole", "workers")) == 0
    for lines in (3, 17, 36):
        folder = tmp_path / str(lines)
        job = new_job(folder, "workers")
        assert server.run(job, after(lines, signal.SIGTERM, group=True)) == 3
        error = (folder / "error-0.txt").read_text()
        assert "KeyboardInterrupt" in error, error
        assert "A checkpoint of step" in error
        assert server.run({**job, "number": 1}) == 0
        assert difference(end(tmp_path / "whole"), end(folder)) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_interrupts_immediately(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), deferred_interrupt() as interrupt:
        os.kill(os.getpid(), number)
        assert interrupt.pending
        os.kill(os.getpid(), number)
        raise AssertionError("the second one did not interrupt")
    assert signal.getsignal(number) is before


def test_a_pending_signal_interrupts_at_the_end() -> None:
    with pytest.raises(KeyboardInterrupt), deferred_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_user_defined_handler_is_kept() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with deferred_interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        assert not interrupt.pending
    finally:
        signal.signal(signal.SIGTERM, before)
