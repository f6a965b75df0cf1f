"""Ctrl-C or SIGTERM ends a run at a step border: what is saved then can be resumed bit for bit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# Signals, and the handler that Python starts with: SIGTERM is what schedulers send.
_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


@dataclass(slots=True)
class Interrupt:
    """Whether Ctrl-C was pressed, or SIGTERM sent, since the run began."""

    pending: bool = False


@contextmanager
def deferred_interrupt() -> Generator[Interrupt]:
    """Turns the first Ctrl-C or SIGTERM into ``pending``; the second one interrupts at once.

    Only in the main thread and only in place of Python's own handlers; elsewhere nothing changes.

    Raises:
        KeyboardInterrupt: At the second signal, or at the end for one that nobody acted upon.
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
        raise KeyboardInterrupt  # it came after the last step border
