"""What a worker process does when a signal goes to every process of a run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def ignore_stop_signals(worker: int) -> None:
    """Makes this worker process outlive Ctrl-C and SIGTERM, until the main process ends it.

    A terminal sends Ctrl-C, and schedulers send SIGTERM, to the main process and to its workers
    at once. The main one finishes its step and saves; a worker that dies before that would break
    in upon it. Where signals do not tell who sent them (macOS, Windows), SIGTERM still ends it.
    """
    main = multiprocessing.parent_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if main is None or not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # In a thread of its own, so that a worker whose reading hangs can still be ended.
    threading.Thread(target=_end_when_told, args=(main.pid,), daemon=True).start()


def _end_when_told(main: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main:
        pass
    os._exit(0)
