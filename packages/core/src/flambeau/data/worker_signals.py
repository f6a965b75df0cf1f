"""Signal handling of worker processes when a signal is sent to every process of a run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def ignore_stop_signals(worker: int) -> None:
    """Make this worker process ignore SIGINT, and SIGTERM unless the main process sent it.

    A terminal sends Ctrl-C, and a scheduler sends SIGTERM, to the main process and its workers at
    the same time. The main process finishes its step and saves a checkpoint, for which the workers
    must stay alive. On systems that do not report the sender of a signal (macOS, Windows), SIGTERM
    still ends the worker.
    """
    main = multiprocessing.parent_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if main is None or not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    # In a separate thread, so that a worker can be ended while its reading hangs.
    threading.Thread(target=_exit_on_sigterm, args=(main.pid,), daemon=True).start()


def _exit_on_sigterm(main: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != main:
        pass
    os._exit(0)
