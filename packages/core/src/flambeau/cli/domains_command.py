"""``flambeau domains``: the installed domains and their options."""

from __future__ import annotations

from typing import Annotated

import typer

from flambeau.domain import CliOption, Domain, get_domain, installed_domains
from flambeau.report import text_table


def domains(
    name: Annotated[str | None, typer.Argument(help="Show the options of this domain.")] = None,
) -> None:
    """List the installed domains (kinds of data)."""
    if name is not None:
        _describe(get_domain(name))
        return
    rows: list[list[str]] = []
    for found in installed_domains().values():
        if found.domain is None:
            rows.append([found.name, found.distribution, f"cannot be loaded: {found.error}"])
        else:
            rows.append([found.name, found.distribution, ", ".join(found.domain.data_classes)])
    typer.echo(text_table(["domain", "package", "data classes"], rows))


def _describe(domain: Domain) -> None:
    typer.echo(f"{domain.name}: {', '.join(domain.data_classes)}")
    typer.echo(f"architectures: {', '.join(domain.models)}")
    typer.echo(f"tasks: {', '.join(domain.tasks)}\n")
    commands: dict[CliOption, list[str]] = {}
    for command, options in domain.cli_options.items():
        for option in options:
            commands.setdefault(option, []).append(command)
    rows = [[f"--{each.name}", ", ".join(of), each.help] for each, of in commands.items()]
    typer.echo(text_table(["option", "commands", "description"], rows))
