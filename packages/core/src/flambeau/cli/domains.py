"""``flambeau domains``: what is installed, and the options of each."""

from __future__ import annotations

from typing import Annotated

import typer

from flambeau import domain as registry
from flambeau.report import text_table


def domains(
    name: Annotated[str | None, typer.Argument(help="Show this domain's own options.")] = None,
) -> None:
    """Lists the kinds of data that the installed packages can train on."""
    if name is not None:
        _describe(registry.get(name))
        return
    rows: list[list[str]] = []
    for found in registry.discover().values():
        if found.domain is None:
            rows.append([found.name, found.distribution, f"cannot be loaded: {found.error}"])
        else:
            rows.append([found.name, found.distribution, ", ".join(found.domain.data_classes)])
    typer.echo(text_table(["domain", "package", "data classes"], rows))


def _describe(domain: registry.Domain) -> None:
    typer.echo(f"{domain.name}: {', '.join(domain.data_classes)}")
    typer.echo(f"architectures: {', '.join(domain.models)}")
    typer.echo(f"tasks: {', '.join(domain.tasks)}\n")
    rows = [[f"--{option.name}", option.help] for option in domain.cli_options]
    typer.echo(text_table(["option of fit, plan and doctor", "what it does"], rows))
