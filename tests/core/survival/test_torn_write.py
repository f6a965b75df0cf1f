"""Killed while a checkpoint is written: what was there loads, and the next save cleans up."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau.artefact.checkpoint_files import (
    checkpoint_step,
    load_checkpoint,
    load_latest_checkpoint,
    save_checkpoint,
)

SIGKILLED, AT_A_BYTE = -signal.SIGKILL, -signal.SIGXFSZ
OLD = (5, 10)  # what is in the folder before

Job = dict[str, Any]


def prepare(here: Any, folder: Path) -> None:
    for step in OLD:
        save_checkpoint(folder, here.jobs.saved_tree(step), step)


def steps(folder: Path) -> list[int]:
    return sorted(checkpoint_step(path) for path in (folder / "checkpoints").iterdir())


def check(here: Any, folder: Path, step: int) -> None:
    """The newest that loads is whole, of the step before or of the new one; then it is tidy."""
    found = load_latest_checkpoint(folder)  # a warning, of a damaged one, would be an error
    assert found is not None
    tree = found[1]
    assert tree["step"] in (10, step)
    assert torch.equal(tree["x"], here.jobs.saved_tree(tree["step"])["x"])
    for path in (folder / "checkpoints").iterdir():
        assert not path.name.startswith("step-") or load_checkpoint(path)
    save_checkpoint(folder, here.jobs.saved_tree(20), 20)
    left = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert left == [f"step-{tree['step']:08d}", "step-00000020"]


@pytest.mark.slow
@pytest.mark.parametrize("step", [15, 10], ids=["a new step", "the same step"])
def test_killed_before_each_call(here: Any, tmp_path: Path, step: int) -> None:
    job: Job = {"kind": "save", "step": step}
    prepare(here, tmp_path / "counted")
    assert here.run({**job, "folder": str(tmp_path / "counted")}) == 0
    calls = int((tmp_path / "counted" / "calls").read_text())
    assert calls >= 15
    outcomes = []
    for call in range(calls):
        folder = tmp_path / str(call)
        prepare(here, folder)
        code = here.run({**job, "folder": str(folder), "kill_at": call})
        assert code == SIGKILLED
        found = load_latest_checkpoint(folder)
        assert found is not None
        outcomes.append(found[1]["step"])
        check(here, folder, step)
    if step == 15:
        # The old one up to a call, the new one from there on; both happen.
        assert outcomes == sorted(outcomes)
        assert set(outcomes) == {10, 15}


def test_killed_at_each_of_many_bytes(here: Any, tmp_path: Path) -> None:
    draws = random.Random(4)
    # tensors.safetensors has 40,080 bytes and more, state.json some 4,000.
    limits = [0, 7, 39_999, *(draws.randrange(100, 40_000) for _ in range(3))]
    for limit in limits:
        folder = tmp_path / str(limit)
        prepare(here, folder)
        job: Job = {"kind": "save", "folder": str(folder), "step": 15, "limit": limit}
        assert here.run(job) == AT_A_BYTE
        assert load_latest_checkpoint(folder)[1]["step"] == 10  # type: ignore[index]
        check(here, folder, 15)


def test_a_checkpoint_is_removed_atomically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    save_checkpoint(tmp_path, {"step": 1}, 1, keep=1)
    monkeypatch.setattr(
        "flambeau.atomic_write.shutil.rmtree", lambda path, **_: removed.append(path.name)
    )
    save_checkpoint(tmp_path, {"step": 2}, 2, keep=1)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    # Under a name that nobody takes for a checkpoint, before the first of its files is deleted.
    assert names[0].startswith(".step-00000001.")
    assert names[0] in removed
    assert names[1:] == ["step-00000002"]
