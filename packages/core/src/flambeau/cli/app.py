"""Assembles the commands, and prints expected errors as one message without a traceback."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points

import typer

from flambeau.cli.demo_command import demo
from flambeau.cli.difference_command import difference
from flambeau.cli.doctor_command import doctor
from flambeau.cli.domain_help import CommandWithDomainHelp
from flambeau.cli.domains_command import domains
from flambeau.cli.evaluate_command import evaluate
from flambeau.cli.fit_command import fit
from flambeau.cli.launch_command import launch
from flambeau.cli.plan_command import plan
from flambeau.cli.predict_command import predict
from flambeau.cli.profile_command import profile
from flambeau.cli.runs_command import runs
from flambeau.cli.step_command import step
from flambeau.device import is_out_of_memory
from flambeau.errors import FlambeauError
from flambeau.wording import first_line

HELP = """Train neural networks with automatic choices that are shown with their reasons.

\b
  flambeau demo vision          a complete run on synthetic images
  flambeau plan photos/         show every choice for your data, with its reason
  flambeau doctor photos/       check data and setup for silent mistakes
  flambeau step photos/         show every value of the first training step
  flambeau profile photos/      show where the time of a training step goes
  flambeau fit photos/          train, evaluate and export a model
  flambeau fit people.csv --target income   the same for a table, or --domain text, …
  flambeau predict MODEL *.jpg  predict for new files
  flambeau difference A B       show how the weights of two models differ, by layer
  flambeau runs                 list the runs made so far, and compare them
"""


def build_app() -> typer.Typer:
    """Return the application with the commands of the core package and of installed packages."""
    app = typer.Typer(
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    extra = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command("demo")(demo)
    for name, command in (
        ("plan", plan),
        ("doctor", doctor),
        ("step", step),
        ("profile", profile),
        ("fit", fit),
        ("evaluate", evaluate),
        ("predict", predict),
    ):
        app.command(name, cls=CommandWithDomainHelp, context_settings=extra)(command)
    app.command("difference")(difference)
    app.command("domains")(domains)
    app.add_typer(runs, name="runs")
    # Words after the script are its own arguments.
    script = {"allow_interspersed_args": False, "ignore_unknown_options": True}
    app.command("launch", context_settings=script)(launch)
    for entry in sorted(entry_points(group="flambeau.commands"), key=lambda entry: entry.name):
        try:
            app.add_typer(entry.load(), name=entry.name)
        except Exception as error:  # noqa: BLE001 one invalid package must not disable the others
            typer.echo(f"warning: Cannot load the command {entry.name!r}: {error}", err=True)
    return app


def run() -> None:
    """Run the command line; with FLAMBEAU_DEBUG=1 expected errors have a traceback too."""
    try:
        build_app()()
    except FlambeauError as error:
        if os.environ.get("FLAMBEAU_DEBUG"):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except Exception as error:
        if os.environ.get("FLAMBEAU_DEBUG") or not is_out_of_memory(error):
            raise
        typer.echo(
            f"error: Out of memory: {first_line(error)}. Use smaller batches "
            "(--set batch_size=…), smaller inputs or a smaller model.",
            err=True,
        )
        sys.exit(2)
