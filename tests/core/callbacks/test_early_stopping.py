"""EarlyStopping: when it stops, and that a resumed run stops at the same epoch."""

import json
from collections.abc import Callable

import pytest

from flambeau.callbacks import EarlyStopping
from flambeau.errors import ArgumentError, InputError
from flambeau.training.state import Position, TrainState

NewState = Callable[..., TrainState]


def epochs_run(
    callback: EarlyStopping, scores: list[float], new_state: NewState, start: int = 0
) -> tuple[int, str | None]:
    """Feed one score per epoch; return the epoch after which it stopped, and the reason."""
    state = new_state(epochs=len(scores))
    state.history.modes["valid_accuracy"] = "max"
    state.position = Position(phase_epoch=start, epoch=start)
    callback.on_fit_start(state)
    for epoch, score in enumerate(scores[start:], start + 1):
        state.history.add({"epoch": epoch, callback.monitor: score})
        state.position.phase_epoch = state.position.epoch = epoch
        callback.on_epoch_end(state)
        if state.stop_reason is not None:
            return epoch, state.stop_reason
    return len(scores), None


def stops_after(scores: list[float], patience: int, sign: float, min_delta: float) -> int:
    """Reference: stop once the best score is ``patience`` epochs old."""
    best, best_epoch = None, 0
    for epoch, score in enumerate(scores, 1):
        if best is None or sign * (best - score) > min_delta:
            best, best_epoch = score, epoch
        if epoch - best_epoch >= patience:
            return epoch
    return len(scores)


@pytest.mark.parametrize("patience", [1, 2, 4])
@pytest.mark.parametrize("min_delta", [0.0, 0.15])
@pytest.mark.parametrize(("monitor", "sign"), [("valid_loss", 1.0), ("valid_accuracy", -1.0)])
def test_it_stops_after_patience_epochs(
    patience: int, min_delta: float, monitor: str, sign: float, new_state: NewState
) -> None:
    scores = [1.0, 0.8, 0.9, 0.75, 0.74, 0.9, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.0, 0.9]
    callback = EarlyStopping(monitor, patience, min_delta)
    expected = stops_after(scores, patience, sign, min_delta)
    assert epochs_run(callback, scores, new_state)[0] == expected


def test_the_stop_reason(new_state: NewState) -> None:
    epoch, reason = epochs_run(EarlyStopping(patience=2), [0.5, 0.25, 0.3, 0.4], new_state)
    assert (epoch, reason) == (
        4,
        "valid_loss has not improved for 2 epochs (best 0.25 in epoch 2)",
    )


def test_nan_is_never_the_best_score(new_state: NewState) -> None:
    nan = float("nan")
    callback = EarlyStopping(patience=2)
    assert epochs_run(callback, [nan, 1.0, nan, 0.9, nan, nan, 0.1], new_state)[0] == 6
    assert callback.best == 0.9
    _, reason = epochs_run(EarlyStopping(patience=2), [nan, nan], new_state)
    assert reason == "valid_loss has not improved for 2 epochs (every score is NaN)"


@pytest.mark.parametrize("interrupted_after", [1, 2, 3])
def test_a_resumed_run_stops_at_the_same_epoch(interrupted_after: int, new_state: NewState) -> None:
    scores = [1.0, 0.5, 0.6, 0.7, 0.8, 0.9]
    first = EarlyStopping(patience=3)
    epochs_run(first, scores[:interrupted_after], new_state)
    second = EarlyStopping(patience=3)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert epochs_run(second, scores, new_state, start=interrupted_after)[0] == 5


def test_a_new_fit_starts_from_scratch(new_state: NewState) -> None:
    callback = EarlyStopping(patience=2)
    assert epochs_run(callback, [0.1, 0.2, 0.3], new_state)[0] == 3
    assert epochs_run(callback, [0.9, 0.8, 0.7], new_state) == (3, None)


def test_an_existing_stop_reason_is_kept(new_state: NewState) -> None:
    callback, state = EarlyStopping(patience=1), new_state()
    callback.on_fit_start(state)
    state.stop_reason = "another callback"
    for score in (1.0, 2.0):
        state.history.add({"valid_loss": score})
        callback.on_epoch_end(state)
    assert state.stop_reason == "another callback"


def test_an_unknown_direction_is_refused(new_state: NewState) -> None:
    with pytest.raises(ArgumentError, match=r"'valid_wer', but .*higher_is_better = True or False"):
        epochs_run(EarlyStopping("valid_wer"), [1.0, 2.0], new_state)
    by_hand = EarlyStopping("valid_wer", patience=1, mode="min")
    assert epochs_run(by_hand, [1.0, 2.0, 3.0], new_state)[0] == 2


def test_invalid_arguments_are_refused(new_state: NewState) -> None:
    with pytest.raises(InputError, match="whole number of evaluations, at least 1, not 0"):
        EarlyStopping(patience=0)
    with pytest.raises(InputError, match=r"at least 0, not -0\.1"):
        EarlyStopping(min_delta=-0.1)
    with pytest.raises(InputError, match="mode is 'lowest'"):
        EarlyStopping(mode="lowest")
    state = new_state()
    state.history.add({"phase": "fit", "train_loss": 1.0})
    with pytest.raises(InputError, match=r"no column of numbers 'valid_loss'.*validation set"):
        EarlyStopping().on_epoch_end(state)
