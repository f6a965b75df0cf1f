"""The folder of a run: a command creates it first, and removes it if nothing was trained."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from flambeau.artefact.checkpoint_files import latest_checkpoint
from flambeau.errors import InputError
from flambeau.learner.run_folder import check_unused, run_exists_error

OutputFolder = Annotated[
    Path | None, typer.Option(help="Folder of the run; by default a new folder in runs/.")
]
"""The option ``--out``."""


def make_run_folder(folder: Path) -> None:
    """Create the folder of a new run.

    Raises:
        ArgumentError: It already contains a run, which would be overwritten.
        InputError: It cannot be created.
    """
    if (folder / "plan.json").exists():
        raise run_exists_error(folder, "plan.json")
    check_unused(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"Cannot create the run's folder {folder.absolute()}: {error.strerror}. Choose a "
            "folder that you can write to: --out FOLDER."
        ) from error


def remove_if_untrained(folder: Path) -> None:
    """Delete the files of a run that failed before its first epoch ended, without a checkpoint."""
    history = folder / "history.csv"
    trained = history.exists() and history.stat().st_size > 0
    if trained or latest_checkpoint(folder) is not None:
        return
    for file in (history, folder / "plan.json", folder / "run.json"):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # the folder has other files, or does not exist
        folder.rmdir()
