"""Rules for every callback: it only observes, works in two fits, and its state is JSON."""

import hashlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flambeau.callbacks
from flambeau.callbacks import Checkpointing, EarlyStopping, HistoryWriter, ProgressBar
from flambeau.training.events import EVENTS, Callback, Dispatch
from flambeau.training.state import TrainState


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class ChangesModel(Callback):
    """Broken on purpose: it changes the model."""

    def on_step_end(self, state: TrainState) -> None:
        with torch.no_grad():
            state.model[0].weight.add_(1.0)


MAKE: dict[str, Callable[[], Callback]] = {
    "Checkpointing": Checkpointing,
    "Checkpointing, each step": lambda: Checkpointing(every_s=1e-9, keep=1),
    "EarlyStopping": lambda: EarlyStopping(patience=1),
    "HistoryWriter, csv": HistoryWriter,
    "HistoryWriter, jsonl": lambda: HistoryWriter("jsonl"),
    "ProgressBar, lines": lambda: ProgressBar(io.StringIO(), line_every_s=0.0),
    "ProgressBar, bar": lambda: ProgressBar(Terminal(), every_s=0.0),
}


def fingerprint(state: TrainState) -> str:
    """Return a hash of everything that a callback must not change."""
    parts: list[bytes] = [torch.get_rng_state().numpy().tobytes()]
    parts += [repr(random.getstate()).encode(), np.random.get_state()[1].tobytes()]
    for name, value in state.model.state_dict().items():
        parts += [name.encode(), value.numpy().tobytes()]
    for parameter in state.model.parameters():
        gradient = b"" if parameter.grad is None else parameter.grad.numpy().tobytes()
        parts += [gradient, bytes([parameter.requires_grad])]
    parts += [bytes([module.training]) for module in state.model.modules()]
    for optimizer in state.optimizers.values():
        saved = optimizer.state_dict()
        parts.append(repr(saved["param_groups"]).encode())
        for entry in saved["state"].values():
            parts += [
                v.numpy().tobytes() if isinstance(v, torch.Tensor) else repr(v).encode()
                for v in entry.values()
            ]
    parts += [repr(state.position).encode(), repr(state.history.rows).encode()]
    parts += [repr(state.values).encode(), repr(state.scores).encode()]
    return hashlib.sha256(b"|".join(parts)).hexdigest()


def watched(callback: Callback) -> Callable[[str, TrainState], None]:
    """Return a function that sends events and compares the fingerprint around each."""
    dispatch = Dispatch([callback])

    def send(event: str, state: TrainState) -> None:
        before = fingerprint(state)
        dispatch.send(event, state)
        if fingerprint(state) != before:
            raise AssertionError(f"{type(callback).__name__}.{event} changed the run")

    return send


def test_every_callback_is_tested_here() -> None:
    assert {name.split(",")[0] for name in MAKE} == set(flambeau.callbacks.__all__)


@pytest.mark.parametrize("name", MAKE)
def test_it_changes_nothing_in_the_run(
    name: str, tmp_path: Path, new_state: Callable[..., TrainState], drive: Any
) -> None:
    drive(new_state(tmp_path), watched(MAKE[name]()))


@pytest.mark.parametrize("name", MAKE)
def test_it_changes_nothing_in_a_failing_run(
    name: str, tmp_path: Path, new_state: Callable[..., TrainState], drive: Any
) -> None:
    with pytest.raises(ValueError, match="a damaged batch"):
        drive(new_state(tmp_path), watched(MAKE[name]()), fail_at=4)


def test_a_callback_that_changes_the_model_is_detected(
    new_state: Callable[..., TrainState], drive: Any
) -> None:
    with pytest.raises(AssertionError, match=r"ChangesModel\.on_step_end changed the run"):
        drive(new_state(), watched(ChangesModel()))


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("with_folder", [True, False])
def test_it_works_in_two_fits(
    name: str, with_folder: bool, tmp_path: Path, new_state: Callable[..., TrainState], drive: Any
) -> None:
    callback = MAKE[name]()
    folder = tmp_path if with_folder else None
    for _ in range(2):
        state = new_state(folder)
        drive(state, Dispatch([callback]).send)
        assert state.position.epoch == 2
    if not with_folder:
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", MAKE)
def test_its_state_is_json_and_can_be_restored(
    name: str, tmp_path: Path, new_state: Callable[..., TrainState], drive: Any
) -> None:
    callback, other = MAKE[name](), MAKE[name]()
    drive(new_state(tmp_path), Dispatch([callback]).send)
    saved = callback.state_dict()
    other.load_state_dict(json.loads(json.dumps(saved, allow_nan=False)))
    assert other.state_dict() == saved


@pytest.mark.parametrize("name", MAKE)
def test_it_defines_only_known_events(name: str) -> None:
    callback = MAKE[name]()
    own = {n for n in vars(type(callback)) if n.startswith("on_")}
    assert own
    assert own <= set(EVENTS)


def test_all_callbacks_in_one_run(
    tmp_path: Path, new_state: Callable[..., TrainState], drive: Any
) -> None:
    state = new_state(tmp_path)
    drive(state, Dispatch([make() for make in MAKE.values()]).send)
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoints",
        "history.csv",
        "history.jsonl",
    }
