"""``flambeau fit --folds``: train on the folds of a cross-validation, and export the ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flambeau.artefact.export_format import EXPORT_OF_RUN
from flambeau.cli.output_folder import remove_if_untrained
from flambeau.errors import ArgumentError
from flambeau.learner import Learner
from flambeau.report import text_table

FoldCount = Annotated[
    int | None,
    typer.Option("--folds", help="Train on this many folds, and export the ensemble."),
]
"""The option ``--folds``."""

SeedCount = Annotated[
    int | None, typer.Option("--seeds", help="With --folds: models for each fold; 1 by default.")
]
"""The option ``--seeds``."""

FoldWorkers = Annotated[
    int | None,
    typer.Option(help="With --folds: processes that train models at the same time; 0 by default."),
]
"""The option ``--fold-workers``."""

OUT_OF_FOLD = "out_of_fold.csv"
"""The file with the predictions for held-out rows, in the folder of a run."""


def fold_arguments(
    folds: int | None,
    seeds: int | None,
    recipe: str | None,
    minutes: float | None,
    workers: int | None = None,
    resume: Path | None = None,
) -> dict[str, Any] | None:
    """Return the arguments of ``learner.fit_folds``, saved ones to resume; None for one model.

    Raises:
        ArgumentError: Another option cannot be combined with ``--folds``.
    """
    if resume is not None:
        return _saved_arguments(resume, workers)
    if folds is None:
        if seeds is not None:
            raise ArgumentError(
                f"--seeds {seeds} is the number of models for each fold. Give --folds too."
            )
        if workers is not None:
            raise ArgumentError(
                f"--fold-workers {workers} is the number of processes that train the models of "
                "folds. Give --folds too."
            )
        return None
    if minutes is not None:
        raise ArgumentError(
            f"--minutes {minutes:g} cannot be used with --folds, because all models are trained "
            "alike. Give --epochs or --steps."
        )
    found = {"k": folds, "seeds": 1 if seeds is None else seeds, "recipe": recipe or "fit"}
    return {**found, "num_workers": workers or 0}


def _saved_arguments(folder: Path, workers: int | None) -> dict[str, Any] | None:
    """Return the arguments with which ``fit_folds`` wrote to ``folder``; None if it did not."""
    from flambeau.learner.fold_record import read_record

    saved = read_record(folder)
    if saved is None:
        return None
    found = {"k": saved["k"], "seeds": saved["seeds"], "recipe": saved["recipe"], "resume": True}
    return {**found, "num_workers": workers or 0}


def fit_folds(learner: Learner, folder: Path, arguments: Mapping[str, Any]) -> None:
    """Train on folds, print the scores, and write predictions and the ensemble to the folder."""
    from flambeau.cli.predict_command import write_records

    found = learner.fit_folds(**arguments)
    typer.echo(f"\n{found}")
    columns = found.columns
    rows = zip(*columns.values(), strict=True)
    write_records([dict(zip(columns, row, strict=True)) for row in rows], folder / OUT_OF_FOLD)
    if len(found.data.split.test):
        scores = found.evaluate("test")
        table = text_table(["", *scores], [["test", *(f"{v:.4f}" for v in scores.values())]])
        typer.echo(f"\nThe ensemble:\n{table}")
    exported = found.export(folder / EXPORT_OF_RUN)
    typer.echo(
        f"\nThe ensemble is in {exported}. Predict with it: flambeau predict {exported} FILES…\n"
        f"The predictions for held-out rows are in {folder / OUT_OF_FOLD}."
    )


def remove_if_nothing_trained(folder: Path) -> None:
    """Delete the files of a run in which no model was trained."""
    if any(each.is_dir() for each in folder.glob("fold-*")):
        return
    from flambeau.learner.fold_record import RECORD

    (folder / RECORD).unlink(missing_ok=True)
    remove_if_untrained(folder)
