"""End a run between two steps on Ctrl-C or SIGTERM, so that it can be resumed bit for bit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# Signals and the handlers that Python installs for them. Job schedulers send SIGTERM.
_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@dataclass(slots=True)
class Interrupt:
    """Whether SIGINT (Ctrl-C) or SIGTERM was received since the run began."""

    pending: bool = False


@contextmanager
def deferred_interrupt() -> Generator[Interrupt]:
    """Set ``pending`` at the first Ctrl-C or SIGTERM; interrupt at once at the second.

    This works only in the main thread and with Python's default handlers of the signals; otherwise
    it does nothing.

    Raises:
        KeyboardInterrupt: At the second signal, or at the end of the block if a signal is pending.
    """
    interrupt = Interrupt()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupt.pending:
            raise KeyboardInterrupt
        interrupt.pending = True

    in_main = threading.current_thread() is threading.main_thread()
    previous = {
        number: signal.signal(number, handle)
        for number, default in _DEFAULTS.items()
        if in_main and signal.getsignal(number) is default
    }
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if interrupt.pending:
        raise KeyboardInterrupt  # it came after the last step
