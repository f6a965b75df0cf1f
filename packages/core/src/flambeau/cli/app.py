"""Puts the commands together and turns expected errors into one readable message."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points

import typer

from flambeau.cli import demo, doctor, domains, evaluate, fit, launch, plan, predict
from flambeau.cli.data_command import DataCommand
from flambeau.device import is_out_of_memory
from flambeau.errors import FlambeauError

HELP = """Train deep networks with useful defaults, and see every choice.

\b
  flambeau demo vision          a whole run on pictures it makes itself
  flambeau plan photos/         what would be chosen for your data, and why
  flambeau doctor photos/       what goes wrong silently, before training
  flambeau fit photos/          train, and export the model
  flambeau predict MODEL *.jpg  answers for new files
"""


def build() -> typer.Typer:
    """The application with core's commands and those of installed packages."""
    app = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    extra = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command("demo")(demo.demo)
    for name, command in (
        ("plan", plan.plan),
        ("doctor", doctor.doctor),
        ("fit", fit.fit),
        ("evaluate", evaluate.evaluate),
    ):
        app.command(name, cls=DataCommand, context_settings=extra)(command)
    app.command("predict")(predict.predict)
    app.command("domains")(domains.domains)
    # What follows the script belongs to it.
    script = {"allow_interspersed_args": False, "ignore_unknown_options": True}
    app.command("launch", context_settings=script)(launch.launch)
    for entry in sorted(entry_points(group="flambeau.commands"), key=lambda entry: entry.name):
        try:
            app.add_typer(entry.load(), name=entry.name)
        except Exception as error:  # noqa: BLE001 a broken package must not take the others away
            typer.echo(f"warning: the command {entry.name!r} cannot be loaded: {error}", err=True)
    return app


def run() -> None:
    """Runs the command line; FLAMBEAU_DEBUG=1 shows tracebacks of expected errors too."""
    try:
        build()()
    except FlambeauError as error:
        if os.environ.get("FLAMBEAU_DEBUG"):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except Exception as error:
        if os.environ.get("FLAMBEAU_DEBUG") or not is_out_of_memory(error):
            raise
        said = str(error).strip().splitlines()[:1] or ["no more is known"]
        typer.echo(
            f"error: Memory ran out: {said[0]}. Take less at a time (--set batch_size=…), smaller "
            "inputs or a smaller model.",
            err=True,
        )
        sys.exit(2)
