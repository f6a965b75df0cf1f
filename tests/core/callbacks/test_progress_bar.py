"""ProgressBar: bars on terminals, lines elsewhere, and a bounded number of device reads."""

import io
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from flambeau.callbacks import ProgressBar, progress_bar
from flambeau.training.state import StepResult, TrainState

NewState = Callable[..., TrainState]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets: ``clock[0] = seconds``."""
    now = [0.0]
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now[0])
    return now


def test_one_row_per_epoch(new_state: NewState, fit: Any) -> None:
    out = io.StringIO()
    fit([ProgressBar(out)], new_state())
    lines = out.getvalue().splitlines()
    assert [line.split() for line in lines] == [
        ["phase", "epoch", "step", "train_loss", "valid_loss", "seconds"],
        ["fit", "1", "3", "0.5", "1", "1.2"],
        ["fit", "2", "6", "0.5", "0.5", "1.2"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_new_columns_give_a_new_header(new_state: NewState) -> None:
    out, state = io.StringIO(), new_state()
    bar = ProgressBar(out)
    bar.on_fit_start(state)
    for row in ({"loss": 1.0}, {"loss": 0.123456}, {"loss": 1.0, "accuracy": 0.5}):
        state.history.add(row)
        bar.on_epoch_end(state)
    assert [line.split() for line in out.getvalue().splitlines()] == [
        ["loss"],
        ["1"],
        ["0.1235"],
        ["loss", "accuracy"],
        ["1", "0.5"],
    ]


def test_lines_without_a_terminal(new_state: NewState, clock: list[float]) -> None:
    out, state = io.StringIO(), new_state()
    bar = ProgressBar(out, line_every_s=10.0)
    bar.on_fit_start(state)
    bar.on_epoch_start(state)
    state.last = StepResult(torch.tensor(0.25), 1.0)
    for step in range(1, 31):  # a step a second
        clock[0] = float(step)
        state.position.epoch_step = step
        bar.on_step_end(state)
    bar.on_eval_start(state)
    for step in range(1, 21):
        clock[0] = 30.0 + step
        bar.on_eval_step_end(state)
    assert out.getvalue().splitlines() == [
        "fit 1/2  step 10/3  loss 0.25  1 steps/s",
        "fit 1/2  step 20/3  loss 0.25  1 steps/s",
        "fit 1/2  step 30/3  loss 0.25  1 steps/s",
        "fit 1/2  evaluating, batch 10",
        "fit 1/2  evaluating, batch 20",
    ]
    assert "\r" not in out.getvalue()


@pytest.mark.parametrize(("stream", "reads"), [(io.StringIO, 9), (Terminal, 199)])
def test_the_device_is_read_at_a_bounded_rate(
    stream: Callable[[], io.StringIO], reads: int, new_state: NewState, clock: list[float]
) -> None:
    class Loss:
        count = 0

        def __float__(self) -> float:
            self.count += 1
            return 0.5

    loss, state = Loss(), new_state()
    bar = ProgressBar(stream())
    bar.on_fit_start(state)
    bar.on_epoch_start(state)
    state.last = StepResult(loss, 1.0)
    for step in range(
        10_000
    ):  # 100 seconds: a reading every 10 s without a bar, every 0.5 s with one
        clock[0] = step / 100
        bar.on_step_end(state)
    bar.on_fit_end(state)
    assert loss.count == reads


def test_a_bar_on_a_terminal(new_state: NewState, fit: Any) -> None:
    out = Terminal()
    fit([ProgressBar(out, every_s=0.0)], new_state())
    text = out.getvalue()
    assert "fit 1/2" in text
    assert "3/3" in text
    assert "loss 0.5" in text
    assert "evaluating, batch 1" in text
    assert "train_loss" in text


def test_the_bar_is_closed_when_the_run_fails(new_state: NewState, fit: Any) -> None:
    bar = ProgressBar(Terminal(), every_s=0.0)
    with pytest.raises(ValueError, match="a damaged batch"):
        fit([bar], new_state(), fail_at=4)
    assert bar._bar is None


def test_a_bar_starts_no_thread(new_state: NewState, fit: Any) -> None:
    before = threading.active_count()
    fit([ProgressBar(Terminal(), every_s=0.0)], new_state())
    assert threading.active_count() == before


def test_a_resumed_epoch_starts_at_its_step(new_state: NewState) -> None:
    out, state = Terminal(), new_state()
    state.position.epoch_step = 2
    bar = ProgressBar(out)
    bar.on_fit_start(state)
    bar.on_epoch_start(state)
    bar.on_exception(state)
    assert "2/3" in out.getvalue()


def test_the_stop_reason_is_shown(new_state: NewState) -> None:
    out, state = io.StringIO(), new_state()
    bar = ProgressBar(out)
    bar.on_fit_start(state)
    state.stop_reason = "enough"
    bar.on_fit_end(state)
    assert out.getvalue() == "Stopped: enough.\n"


def test_the_default_stream_is_read_at_the_start(
    capsys: pytest.CaptureFixture[str], new_state: NewState, fit: Any
) -> None:
    fit([ProgressBar()], new_state())
    captured = capsys.readouterr()
    assert "train_loss" in captured.err
    assert captured.out == ""


def test_a_notebook_without_widgets_gets_a_text_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setitem(sys.modules, "IPython", sys)
    monkeypatch.setattr(progress_bar.importlib.util, "find_spec", lambda name: None)
    assert progress_bar._tqdm().__module__ == "tqdm.std"
