"""``flambeau launch script.py``: a script in several processes; a thin front to torchrun."""

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
        list[str], typer.Argument(help="A script with its arguments, or: fit PATH with options.")
    ],
    processes: Annotated[
        int | None, typer.Option(help="How many; by default one for each GPU.")
    ] = None,
) -> None:
    """Runs a training script in several processes of this machine that share each batch.

    The script needs no change. For several machines use torchrun itself; it starts the same
    script.
    """
    count = _gpus() if processes is None else processes
    if count < 1:
        raise ArgumentError(
            "There is no GPU here to count processes by. Say how many: flambeau launch "
            f"--processes 2 {' '.join(words)}"
            if processes is None
            else f"--processes is {processes}, but at least 1 process is needed."
        )
    command = launch_command(words, count)
    # Each process would otherwise take every core; torchrun gives each of them one.
    threads = str(max(1, (os.cpu_count() or 1) // count))
    environment = {"OMP_NUM_THREADS": threads, **os.environ}
    # In place of this process, so that Ctrl-C and the exit status are torchrun's own.
    os.execve(command[0], command, environment)


def launch_command(words: Sequence[str], count: int) -> list[str]:
    """The command line of torchrun for a script, or for ``fit``.

    Raises:
        ArgumentError: The first word is neither.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun.append(f"--nproc-per-node={count}")
    if Path(words[0]).is_file():
        return [*torchrun, *words]
    if words[0] == "fit":
        # Plan and scores are the same everywhere: process 0 shows them.
        return [*torchrun, "--local-ranks-filter=0", "-m", "flambeau.cli", *words]
    raise ArgumentError(
        f"{words[0]!r} is no file here (looked from {Path.cwd()}), so it cannot be launched. Name "
        "a Python script, or the command `fit`."
    )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
