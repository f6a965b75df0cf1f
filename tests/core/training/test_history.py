"""The size of a history and of its checkpoints is bounded, however many steps a run has."""

from __future__ import annotations

import math
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau import Callback, Learner, TensorData, TrainingOptions
from flambeau.artefact.checkpoint_files import save_checkpoint
from flambeau.errors import ArgumentError
from flambeau.training import history as history_module
from flambeau.training import losses as losses_module
from flambeau.training.history import History
from flambeau.training.losses import StepLosses
from flambeau.training.state import StepResult

X = torch.randn(90, 4, generator=torch.Generator().manual_seed(0))


def test_below_the_limit_every_loss_is_kept() -> None:
    history = History()
    history.add_step_losses(map(float, range(65_535)))
    assert history.loss_interval == 1
    assert list(history.step_losses) == list(range(65_535))


def test_a_million_steps_have_bounded_checkpoints(tmp_path: Path) -> None:
    sizes: list[int] = []
    for steps in (65_000, 1_000_000):
        history = History()
        history.add_step_losses(array("d", [1.0, 3.0]) * (steps // 2))
        folder = save_checkpoint(tmp_path / str(steps), {"history": history.state_dict()}, steps)
        sizes.append(sum(file.stat().st_size for file in folder.iterdir()))
    assert max(sizes) < 600_000
    assert history.loss_interval == 16
    assert len(history.step_losses) == 62_500
    assert set(history.step_losses) == {2.0}


def test_entries_are_means_of_consecutive_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_module, "MAX_STEP_LOSSES", 8)
    values = torch.rand(45, generator=torch.Generator().manual_seed(0)).double().tolist()
    values[3], values[8:12] = math.inf, [math.nan] * 4
    whole, parts = History(), History()
    whole.add_step_losses(values)
    for first in range(0, 45, 7):
        again = History()
        again.load_state_dict(parts.state_dict())  # as in a run that is resumed again and again
        again.add_step_losses(values[first : first + 7])
        parts = again
    assert whole.loss_interval == parts.loss_interval == 8
    assert repr(whole.step_losses) == repr(parts.step_losses)
    assert len(whole.step_losses) == 5
    assert whole.step_losses[2] == pytest.approx(sum(values[16:24]) / 8)
    assert all(map(math.isfinite, whole.step_losses))
    rest = [2.0] * 3  # the five steps without an entry and these are the next one
    whole.add_step_losses(rest)
    assert whole.step_losses[5] == pytest.approx(sum([*values[40:], *rest]) / 8)


@pytest.mark.parametrize("skip", [False, True])
def test_a_long_epoch_has_bounded_memory_and_the_same_mean(skip: bool) -> None:
    history = History()
    losses = StepLosses(history.add_step_losses, skip_nonfinite=skip)
    values = [1.0, 4.0, math.nan if skip else 2.0]
    results = [StepResult(torch.tensor(value), n + 1.0) for n, value in enumerate(values)]
    for step in range(150_000):
        losses.add(results[step % 3])
    state = losses.state_dict()
    assert len(state["losses"]) < 66_000
    resumed = StepLosses(history.add_step_losses, skip_nonfinite=skip)
    resumed.load_state_dict(state)
    mean, weight, steps, empty = resumed.read()
    assert mean == pytest.approx(9 / 3 if skip else 15 / 6, rel=1e-12)
    assert (weight, steps, empty) == (300_000, 150_000, 0)
    assert len(history.step_losses) * history.loss_interval == 150_000 - 150_000 % 4
    assert resumed.read()[1:] == (0, 0, 0)


class Interrupt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, state: Any) -> None:
        if state.position.step == self.step:
            raise KeyboardInterrupt


def make(folder: Path, *callbacks: Callback) -> Learner:
    torch.manual_seed(1)
    return Learner(
        TensorData.from_tensors(X, (X[:, 0] > 0).long(), valid=20),
        nn.Linear(4, 2),
        choices={"batch_size": 2, "probe": "off"},
        training=TrainingOptions(doctor=False),
        callbacks=callbacks,
        folder=folder,
        quiet=True,
    )


@pytest.mark.parametrize("step", [7, 20, 34, 35, 36, 61])
def test_a_long_run_is_resumed_exactly(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = make(tmp_path / "plain").fit(2)
    for module, name, value in (
        (history_module, "MAX_STEP_LOSSES", 8),
        (losses_module, "_CHUNK", 2),
        (losses_module, "_MOST_CHUNKS", 3),
    ):
        monkeypatch.setattr(module, name, value)
    whole = make(tmp_path / "whole").fit(2)
    assert whole.column("train_loss") == pytest.approx(plain.column("train_loss"), rel=1e-12)
    assert whole.loss_interval == 16
    assert whole.step_losses[0] == pytest.approx(sum(plain.step_losses[:16]) / 16)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "part", Interrupt(step)).fit(2)
    resumed = make(tmp_path / "part").resume()
    assert repr(resumed.step_losses) == repr(whole.step_losses)
    assert resumed.column("train_loss") == whole.column("train_loss")


def test_a_column_that_no_row_has_is_named() -> None:
    history = History()
    assert history.column("valid_loss") == []
    history.add({"epoch": 1, "valid_loss": 0.5, "search": "greedy"})
    history.add({"epoch": 2, "valid_loss": 0.25, "valid_f1": 1})
    assert history.column("valid_loss") == [0.5, 0.25]
    assert history.column("valid_f1") == [1.0]
    assert history.names == ("epoch", "valid_loss", "search", "valid_f1")
    with pytest.raises(ArgumentError, match=r"no column 'val_loss'.*'valid_loss'"):
        history.column("val_loss")
    with pytest.raises(ArgumentError, match=r"'search' of the history has text \('greedy'\)"):
        history.column("search")
