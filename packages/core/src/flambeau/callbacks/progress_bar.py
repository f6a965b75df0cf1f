"""``ProgressBar``: shows progress in terminals and notebooks, and as plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol, TextIO

from flambeau.distributed import processes
from flambeau.training.events import Callback
from flambeau.training.history import Number
from flambeau.training.state import TrainState


class ProgressBar(Callback):
    """Shows a bar during each epoch, and a table row with the scores after it.

    If the run is evaluated after a number of steps (``evaluate_every``) instead of epochs, the bar
    counts the steps of the phase, and a row follows each evaluation.

    If the stream is not a terminal (a file, a pipe, CI), plain lines are written at intervals
    instead of a bar. The loss is read from the device only when the display is updated.

    Args:
        stream: Output stream; None uses ``sys.stderr`` at the start of the fit.
        every_s: Seconds between two updates of the bar.
        line_every_s: Seconds between two lines if there is no bar.
    """

    every_process = False

    def __init__(
        self, stream: TextIO | None = None, every_s: float = 0.5, line_every_s: float = 10.0
    ) -> None:
        self.stream = stream
        self.every_s = every_s
        self.line_every_s = line_every_s
        self._out: TextIO = sys.stderr
        self._bar: _Bar | None = None
        self._with_bar = False
        self._interval_s = every_s
        self._next_s = 0.0
        self._epoch_started_s = 0.0
        self._first_step = 0
        self._evaluated = 0
        self._columns: tuple[str, ...] = ()
        self._widths: list[int] = []

    @staticmethod
    def write_line(line: str) -> None:
        """Write a message between fits to standard error, on rank 0 only."""
        group = processes.current()
        if group is None or group.is_main:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def on_fit_start(self, state: TrainState) -> None:
        self._out = self.stream or sys.stderr
        self._with_bar = _in_notebook() or self._out.isatty()
        self._interval_s = self.every_s if self._with_bar else self.line_every_s
        self._columns = ()

    def on_epoch_start(self, state: TrainState) -> None:
        self._first_step = _progress(state)[0]
        self._epoch_started_s = time.monotonic()
        self._next_s = self._epoch_started_s + self._interval_s
        if self._with_bar:
            self._close()
            self._bar = _make_bar(self._out, *_progress(state), _label(state))

    def on_step_end(self, state: TrainState) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._interval_s
        done, total = _progress(state)
        loss = f"loss {float(state.last.loss):.4g}" if state.last is not None else ""
        if self._bar is not None:
            self._bar.set_postfix_str(loss, refresh=False)
            self._bar.update(done - self._bar.n)
            self._bar.refresh()
            return
        rate = (done - self._first_step) / max(now_s - self._epoch_started_s, 1e-9)
        self._line(f"{_label(state)}  step {done}/{total}  {loss}  {rate:.3g} steps/s")

    def on_eval_start(self, state: TrainState) -> None:
        self._evaluated = 0
        self._next_s = time.monotonic() + self._interval_s
        if self._bar is not None:
            self._bar.update(_progress(state)[0] - self._bar.n)

    def on_eval_step_end(self, state: TrainState) -> None:
        self._evaluated += 1
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._interval_s
        if self._bar is not None:
            self._bar.set_postfix_str(f"evaluating, batch {self._evaluated}", refresh=True)
        else:
            self._line(f"{_label(state)}  evaluating, batch {self._evaluated}")

    def on_epoch_end(self, state: TrainState) -> None:
        self._close()
        row = state.history.rows[-1]
        columns = tuple(row)
        texts = [_format(name, row[name]) for name in columns]
        if columns != self._columns:
            self._columns = columns
            self._widths = [
                max(len(name), len(text), 8) for name, text in zip(columns, texts, strict=True)
            ]
            self._row(columns)
        self._row(texts)

    def on_fit_end(self, state: TrainState) -> None:
        self._close()
        if state.stop_reason is not None:
            self._line(f"Stopped: {state.stop_reason}.")

    def on_exception(self, state: TrainState) -> None:
        self._close()

    def _row(self, texts: Sequence[str]) -> None:
        self._line("  ".join(t.rjust(w) for t, w in zip(texts, self._widths, strict=True)))

    def _line(self, text: str) -> None:
        self._out.write(text.rstrip() + "\n")
        self._out.flush()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Bar(Protocol):
    """The part of tqdm's interface that this module uses."""

    n: int

    def update(self, n: int) -> object: ...
    def set_postfix_str(self, s: str, refresh: bool) -> None: ...
    def refresh(self) -> object: ...
    def close(self) -> None: ...


def _make_bar(out: TextIO, done: int, total: int, label: str) -> _Bar:
    bar = _without_monitor(_tqdm())
    # ProgressBar decides when to draw; mininterval=0 turns off the interval of tqdm.
    return bar(
        total=total, initial=done, desc=label, file=out, leave=False, mininterval=0, miniters=1
    )


def _tqdm() -> Any:
    """Import tqdm's bar for a terminal, or for a notebook if ipywidgets is installed."""
    if _in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm_notebook as base
    else:
        from tqdm.std import tqdm as base
    return base


@cache
def _without_monitor(base: Any) -> Any:
    """Return a subclass without tqdm's monitor thread, which would outlive the run."""
    return type("Bar", (base,), {"monitor_interval": 0})


def _in_notebook() -> bool:
    # Only a notebook kernel imports ipykernel; calling IPython would import it everywhere.
    return "ipykernel" in sys.modules and "IPython" in sys.modules


def _label(state: TrainState) -> str:
    if state.evaluates_by_steps:
        return state.phase.name
    epochs = state.phase_epochs
    return f"{state.phase.name} {min(state.position.phase_epoch + 1, epochs)}/{epochs}"


def _progress(state: TrainState) -> tuple[int, int]:
    """Return the number of finished steps and of all steps, in the epoch or else in the phase."""
    if state.evaluates_by_steps:
        return state.phase_step, state.phase_steps
    return state.position.epoch_step, state.steps_per_epoch


def _format(name: str, value: Number) -> str:
    if isinstance(value, float):
        return f"{value:.1f}" if name == "seconds" else f"{value:.4g}"
    return str(value)
