"""``flambeau runs``: list the runs in a folder, and compare runs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flambeau.runs.compare_runs import PARTS, compare_runs
from flambeau.runs.find_runs import find_runs


class _ListsByDefault(TyperGroup):
    """Takes ``flambeau runs FOLDER`` as ``flambeau runs list FOLDER``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


runs = typer.Typer(
    cls=_ListsByDefault,
    help="""List the runs in a folder, or compare runs.

\b
  flambeau runs                       the runs in runs/
  flambeau runs FOLDER                those in another folder
  flambeau runs compare A B           the choices that differ, and whether they helped
""",
    add_completion=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


@runs.command("list")
def list_runs(
    folder: Annotated[Path, typer.Argument(help="A folder with runs.")] = Path("runs"),
    last: Annotated[int | None, typer.Option(min=1, help="Show only the last N runs.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the runs in a folder: choices, data, scores, time, machine, commit.

    Nothing is changed. Folders that are not runs, and files that cannot be read, are named.
    """
    found = find_runs(folder)
    if as_json:
        content = found.to_json()
        content["runs"] = content["runs"][-last:] if last else content["runs"]
        _print_json(content)
        return
    typer.echo(found.table(_width(), last))


@runs.command("compare")
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs; the first is compared.")],
    part: Annotated[
        str, typer.Option(help=f"Samples that are compared: {' or '.join(PARTS)}.")
    ] = "valid",
    out: Annotated[
        Path | None, typer.Option(help="Write a page, too: .html, .md or .json.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare runs: plan differences, curves, and whether the gain is more than noise.

    Runs of one plan with several seeds are compared as a group. Every other group is compared with
    that of the first run.
    """
    found = compare_runs(*folders, part=part)
    if as_json:
        _print_json(found.to_json())
    else:
        typer.echo(found.text(_width()))
    if out is not None:
        typer.echo(f"\nThe page is in {found.save(out)}.", err=as_json)


def _width() -> int | None:
    """Return the width of the terminal; None, which does not wrap, if the output is a file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _print_json(content: dict[str, Any]) -> None:
    from flambeau.report.page import finite

    typer.echo(json.dumps(finite(content), indent=1, ensure_ascii=False, default=str))
