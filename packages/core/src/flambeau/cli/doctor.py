"""``flambeau doctor PATH``: what very likely is wrong with data and set-up, before training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flambeau.cli.source import check_model, open_data, parse_choices
from flambeau.learner import Learner


def doctor(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="Your data: a folder of pictures, a file.")],
    model: Annotated[str | None, typer.Option(help="An architecture by name.")] = None,
    domain: Annotated[str | None, typer.Option(help="The kind of data, if not recognised.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Also what takes longer: near duplicates, overfitting.")
    ] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Fix a choice: --set batch_size=64.")
    ] = None,
) -> None:
    """Looks for what goes wrong silently in your data and set-up. Trains nothing.

    Ends with 0 where nothing is found, with 1 where something is.
    """
    kind, data = open_data(path, domain, context.args)
    check_model(kind, model)
    report = Learner(data, model, choices=parse_choices(settings or []), quiet=True).doctor(
        full=full
    )
    typer.echo(f"{data.report()}\n\n{report}")
    if not report.ok:
        raise typer.Exit(1)
