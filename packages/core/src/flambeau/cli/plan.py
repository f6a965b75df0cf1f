"""``flambeau plan PATH``: every choice and its reason, without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from flambeau.cli.source import check_model, open_data, parse_choices
from flambeau.learner import Learner


def plan(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="Your data: a folder of pictures, a file.")],
    model: Annotated[str | None, typer.Option(help="An architecture by name.")] = None,
    domain: Annotated[str | None, typer.Option(help="The kind of data, if not recognised.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Fix a choice: --set batch_size=64.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse choices of low confidence, naming each.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Shows what would be chosen for your data, why, and how to change it. Trains nothing."""
    kind, data = open_data(path, domain, context.args)
    check_model(kind, model)
    choices = parse_choices(settings or []) | ({"strict": True} if strict else {})
    chosen = Learner(data, model, choices=choices).plan
    if as_json:
        typer.echo(json.dumps(chosen.to_json(), indent=2))
        return
    typer.echo(f"{data.report()}\n\n{chosen}\nOn the command line: --set batch_size=64")
