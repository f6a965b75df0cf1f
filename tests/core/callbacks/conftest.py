"""The events of a small run in the order of the training loop, sent without the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flambeau.data.loader import StepCounts
from flambeau.phases.phase import Phase
from flambeau.task.task import Task
from flambeau.training.events import Callback, Dispatch
from flambeau.training.history import History
from flambeau.training.state import StepResult, TrainState

STEPS = 3


def make_state(folder: Path | None = None, epochs: int = 2) -> TrainState:
    """Return a state as the loop creates it; its snapshot has weights and position."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = TrainState(
        model=model,
        task=Task(),
        phases=[Phase(epochs)],
        optimizers={"main": optimizer},
        device=torch.device("cpu"),
        seed=0,
        step_counts=StepCounts(STEPS),
        history=History(),
        snapshot=lambda: {"model": dict(model.state_dict()), "step": state.position.step},
        folder=folder,
    )
    return state


Send = Callable[[str, TrainState], None]


def drive_run(
    state: TrainState,
    send: Send,
    score: Callable[[int], float] = lambda epoch: 1.0 / epoch,
    fail_at: int | None = None,
) -> None:
    """Send all events of a fit from the state's position; raise in step ``fail_at`` if given."""
    position, history = state.position, state.history
    try:
        send("on_fit_start", state)
        send("on_phase_start", state)
        while position.phase_epoch < state.phase.epochs and state.stop_reason is None:
            send("on_epoch_start", state)
            while position.epoch_step < STEPS:
                send("on_step_start", state)
                state.at_step_boundary = False
                take_step(state)
                if position.step == fail_at:
                    raise ValueError("a damaged batch")
                send("on_gradients_ready", state)
                position.step += 1
                position.epoch_step += 1
                state.last = StepResult(torch.tensor(0.5), 4.0)
                state.at_step_boundary = True
                send("on_step_end", state)
            send("on_eval_start", state)
            send("on_eval_step_end", state)
            epoch = position.epoch + 1
            state.scores = {"loss": score(epoch)}
            send("on_eval_end", state)
            row: dict[str, Any] = {"phase": "fit", "epoch": epoch, "step": position.step}
            history.add(row | {"train_loss": 0.5, "valid_loss": score(epoch), "seconds": 1.25})
            position.phase_epoch += 1
            position.epoch += 1
            position.epoch_step = 0
            send("on_epoch_end", state)
        send("on_fit_end", state)
    except BaseException as error:
        state.exception = error
        send("on_exception", state)
        raise


def take_step(state: TrainState) -> None:
    optimizer = state.optimizers["main"]
    optimizer.zero_grad()
    state.model(torch.ones(4, 2)).sum().backward()
    optimizer.step()


@pytest.fixture
def fit() -> Callable[..., TrainState]:
    """Return ``fit(callbacks, state, …)``, which sends all events and returns the state."""

    def run(callbacks: list[Callback], state: TrainState, **options: Any) -> TrainState:
        drive_run(state, Dispatch(callbacks).send, **options)
        return state

    return run


@pytest.fixture
def drive() -> Callable[..., None]:
    """Return ``drive(state, send, …)``, which sends all events of a fit."""
    return drive_run


@pytest.fixture
def new_state() -> Callable[..., TrainState]:
    """Return ``new_state(folder)``, which creates the state of a new run."""
    return make_state


@pytest.fixture(autouse=True)
def _restore_generator() -> Any:
    before = torch.get_rng_state()
    yield
    torch.set_rng_state(before)
