"""What a resume does with checkpoints that are damaged, used twice, or of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Callback, Checkpointing, FlambeauWarning, Learner, TensorData, TrainingOptions
from flambeau.errors import ArtefactError, ResumeError


class Stop(Callback):
    """Ends a run as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.step:
            raise KeyboardInterrupt


def new_learner(folder: Path | None, *callbacks: Callback, width: int = 8, n: int = 60) -> Learner:
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(7)
    return Learner(
        TensorData.from_tensors(x, (x[:, 0] > 0).long(), valid=20),
        nn.Sequential(nn.Linear(6, width), nn.Dropout(0.2), nn.Linear(width, 2)),
        choices={"batch_size": 10},
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


def broken_off(folder: Path, step: int, keep: int = 2) -> list[Path]:
    """A run of 4 epochs that ended at ``step``; its checkpoints, the newest first."""
    torch.manual_seed(3)
    with pytest.raises(KeyboardInterrupt):
        new_learner(folder, Stop(step), Checkpointing(every_s=1e-9, keep=keep)).fit(4)
    return sorted((folder / "checkpoints").iterdir(), reverse=True)


def flip_a_bit(checkpoint: Path, file: str = "tensors.safetensors") -> None:
    content = bytearray((checkpoint / file).read_bytes())
    content[len(content) // 2] ^= 16
    (checkpoint / file).write_bytes(content)


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in learner.model.parameters()])


@pytest.fixture(scope="module")
def whole() -> Learner:
    torch.manual_seed(3)
    learner = new_learner(None)
    learner.fit(4)
    return learner


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
def test_an_older_checkpoint_replaces_a_damaged_one(
    tmp_path: Path, whole: Learner, file: str
) -> None:
    newest, older = broken_off(tmp_path, 9)
    flip_a_bit(newest, file)
    learner = new_learner(tmp_path)
    message = rf"damaged-checkpoint\] .*{newest.name}.* The older checkpoint {older.name} is used"
    with pytest.warns(FlambeauWarning, match=message):
        learner.resume()
    assert torch.equal(weights(learner), weights(whole))
    assert list(learner.history.step_losses) == list(whole.history.step_losses)


def test_all_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    found = broken_off(tmp_path, 9)
    for checkpoint in found:
        flip_a_bit(checkpoint)
    with pytest.raises(ArtefactError, match="All 2 checkpoints") as caught:
        new_learner(tmp_path).resume()
    assert all(checkpoint.name in str(caught.value) for checkpoint in found)


def test_a_damaged_checkpoint_given_by_name_is_refused(tmp_path: Path) -> None:
    newest, _ = broken_off(tmp_path, 9)
    flip_a_bit(newest)
    with pytest.raises(ArtefactError, match=f"{newest.name}.* is damaged"):
        new_learner(tmp_path).resume(newest)


def test_twice_from_the_same_checkpoint(tmp_path: Path, whole: Learner) -> None:
    # Each resume writes into a copy, as one that was killed again would leave the folder.
    _, older, *_ = broken_off(tmp_path, 9, keep=3)
    for _ in range(2):
        learner = new_learner(tmp_path, Checkpointing(every_s=None, at_epoch_end=False))
        learner.resume(older)
        assert torch.equal(weights(learner), weights(whole))


class StopAtOnce(Callback):
    """Ends a run before its first phase has begun, as Ctrl-C in a callback's set-up does."""

    def on_fit_start(self, state: Any) -> None:
        raise KeyboardInterrupt


def test_interrupted_before_the_first_phase(tmp_path: Path, whole: Learner) -> None:
    torch.manual_seed(3)
    with pytest.raises(KeyboardInterrupt) as caught:
        new_learner(tmp_path, StopAtOnce()).fit(4)
    assert "A checkpoint of step 0" in "".join(caught.value.__notes__)
    torch.manual_seed(99)
    learner = new_learner(tmp_path)
    learner.resume()
    assert torch.equal(weights(learner), weights(whole))
    assert list(learner.history.step_losses) == list(whole.history.step_losses)


def test_one_learner_resumes_twice(tmp_path: Path, whole: Learner) -> None:
    broken_off(tmp_path, 5)
    learner = new_learner(tmp_path, Stop(11))
    with pytest.raises(KeyboardInterrupt):
        learner.resume()
    learner.callbacks = ()
    learner.resume()
    assert torch.equal(weights(learner), weights(whole))
    # Of a run that is over nothing is left to do, and nothing changes.
    again = new_learner(tmp_path)
    again.resume()
    assert torch.equal(weights(again), weights(whole))
    assert len(again.history.rows) == 4


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    broken_off(tmp_path, 9)
    learner = new_learner(tmp_path, width=9)
    before = weights(learner).clone()
    message = r"another run: .*0\.weight: \[8, 6\] in the checkpoint and .*\[9, 6\]"
    with pytest.raises(ResumeError, match=message):
        learner.resume()
    assert torch.equal(weights(learner), before)
    assert learner.history.rows == []


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    broken_off(tmp_path, 9)
    with pytest.raises(ResumeError, match="another run"):
        new_learner(tmp_path, n=90).resume()


def test_a_checkpoint_of_other_options_is_refused(tmp_path: Path) -> None:
    broken_off(tmp_path, 9)
    learner = new_learner(tmp_path)
    learner.training = TrainingOptions(accumulate=2)
    with pytest.raises(ResumeError, match="accumulate is 1 in the checkpoint and 2 in this run"):
        learner.resume()
