"""Ctrl-C ends a run at a step border, so that what is saved can be resumed bit for bit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Interrupt:
    """Whether Ctrl-C was pressed since the run began."""

    pending: bool = False


@contextmanager
def deferred_interrupt() -> Generator[Interrupt]:
    """Turns the first Ctrl-C into ``pending``; the second one interrupts at once.

    Only in the main thread and only in place of Python's own handler; elsewhere nothing changes.
    """
    interrupt = Interrupt()
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupt.pending:
            raise KeyboardInterrupt
        interrupt.pending = True

    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
