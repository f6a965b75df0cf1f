"""``flambeau doctor PATH``: check data and setup for likely mistakes before training."""

from __future__ import annotations

from typing import Annotated

import typer

from flambeau.cli.data_arguments import (
    DataPath,
    DomainName,
    LikeExport,
    TargetName,
    TaskName,
    open_data,
)
from flambeau.cli.plan_arguments import (
    ModelName,
    Settings,
    check_model,
    parse_choices,
    without_none,
)
from flambeau.learner import Learner


def doctor(
    context: typer.Context,
    path: DataPath,
    model: ModelName = None,
    domain: DomainName = None,
    task: TaskName = None,
    target: TargetName = None,
    like: LikeExport = None,
    full: Annotated[
        bool, typer.Option("--full", help="Also run slow checks: near duplicates, overfitting.")
    ] = False,
    settings: Settings = None,
) -> None:
    """Check your data and setup for mistakes that raise no error.

    Nothing is trained. The exit code is 0 without findings and 1 with findings.
    """
    options = {"task": task, "target": target, "like": like}
    kind, data = open_data("doctor", path, domain, context.args, options)
    check_model(kind, model)
    choices = parse_choices(settings or []) | without_none({"task": task})
    report = Learner(data, model, choices=choices, quiet=True).doctor(full=full)
    typer.echo(f"{data.report()}\n\n{report}")
    if not report.ok:
        raise typer.Exit(1)
