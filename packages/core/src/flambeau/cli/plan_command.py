"""``flambeau plan PATH``: show every choice and its reason, without training."""

from __future__ import annotations

import json
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


def plan(
    context: typer.Context,
    path: DataPath,
    model: ModelName = None,
    domain: DomainName = None,
    task: TaskName = None,
    target: TargetName = None,
    like: LikeExport = None,
    settings: Settings = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse choices of low confidence, and list them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Show every choice for your data, with its reason.

    The table also says how to override each choice. Nothing is trained.
    """
    options = {"task": task, "target": target, "like": like}
    kind, data = open_data("plan", path, domain, context.args, options)
    check_model(kind, model)
    choices = parse_choices(settings or []) | without_none({"task": task})
    choices |= {"strict": True} if strict else {}
    chosen = Learner(data, model, choices=choices).plan
    if as_json:
        typer.echo(json.dumps(chosen.to_json(), indent=2))
        return
    typer.echo(f"{data.report()}\n\n{chosen}\nOn the command line: --set batch_size=64")
