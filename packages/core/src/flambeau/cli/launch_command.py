"""``flambeau launch SCRIPT``: run a script in several processes with torchrun."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from flambeau.errors import ArgumentError


def launch(
    words: Annotated[
        list[str], typer.Argument(help="A script and its arguments, or: fit PATH and options.")
    ],
    processes: Annotated[
        int | None, typer.Option(help="Number of processes; by default one per GPU.")
    ] = None,
) -> None:
    """Run a training script in several processes.

    All processes run on this machine and train one model, each on its share of every batch.

    The script needs no change. For several machines start the same script with torchrun.
    """
    count = _gpu_count() if processes is None else processes
    if count < 1:
        raise ArgumentError(
            "No GPU was found, so the number of processes is unknown. Give it: flambeau launch "
            f"--processes 2 {' '.join(words)}"
            if processes is None
            else f"--processes must be at least 1, not {processes}."
        )
    command = torchrun_command(words, count)
    # Without OMP_NUM_THREADS torchrun gives each process one thread; share the cores instead.
    threads = str(max(1, (os.cpu_count() or 1) // count))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    # Replace this process, so that torchrun receives Ctrl-C and sets the exit status.
    os.execve(command[0], command, environment)


def torchrun_command(words: Sequence[str], count: int) -> list[str]:
    """Return the torchrun command line for a script, or for ``flambeau fit``.

    Raises:
        ArgumentError: The first word is neither a file nor ``fit``.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun.append(f"--nproc-per-node={count}")
    if Path(words[0]).is_file():
        return [*torchrun, *words]
    if words[0] == "fit":
        # Plan and scores are equal in all processes; rank 0 prints them.
        return [*torchrun, "--local-ranks-filter=0", "-m", "flambeau.cli", *words]
    raise ArgumentError(
        f"Cannot launch {words[0]!r}: no such file (current folder: {Path.cwd()}). Give a Python "
        "script, or the command `fit`."
    )


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()
