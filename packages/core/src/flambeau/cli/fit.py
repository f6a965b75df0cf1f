"""``flambeau fit PATH``: from raw files to an exported model."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from flambeau.cli.source import (
    check_model,
    clear_unused,
    given,
    make_run_folder,
    open_data,
    parse_choices,
)
from flambeau.distributed.processes import on_main
from flambeau.errors import ArgumentError, nearest
from flambeau.learner import Learner
from flambeau.learner.run_folder import agree_on_folder, run_of
from flambeau.plan import Plan
from flambeau.report import text_table

RECIPES: Mapping[str, Callable[[Learner], object]] = {
    "fit": Learner.fit,
    "one_cycle": Learner.fit_one_cycle,
    "flat_cos": Learner.fit_flat_cos,
    "fine_tune": Learner.fine_tune,
    "gradual": Learner.gradual_unfreeze,
}
"""Verbs of the learner by the name after --recipe."""


def fit(  # noqa: PLR0913, PLR0917 a command's options are its arguments
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="Your data: a folder of pictures, a file.")],
    model: Annotated[str | None, typer.Option(help="An architecture by name.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the train set.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    recipe: Annotated[str, typer.Option(help=f"How to train: {', '.join(RECIPES)}.")] = "fit",
    minutes: Annotated[
        float | None, typer.Option(help="Train as long as it helps, at most so many minutes.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; by default a new one under runs/.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run instead of starting one.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Key of every random draw.")] = 0,
    domain: Annotated[str | None, typer.Option(help="The kind of data, if not recognised.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Fix a choice: --set batch_size=64.")
    ] = None,
) -> None:
    """Trains on your data, shows the plan and the progress, exports the model.

    Ctrl-C saves a checkpoint and says how to go on. Options that belong to one kind of data
    (--size for pictures) stand after the others.
    """
    kind, data = open_data(path, domain, context.args)
    check_model(kind, model)
    check_recipe(recipe)
    typer.echo(data.report() + "\n")
    choices = parse_choices(settings or []) | given({"epochs": epochs, "lr": lr})
    if resume is not None:
        folder = run_of(resume)
        saved = Plan.load(folder / "plan.json")
        # Those that differ are refused by resume; epochs and lr are those of the run's phases.
        same = {key: value for key, value in choices.items() if key not in ("epochs", "lr")}
        learner = Learner(data, plan=saved, choices=same, seed=seed, folder=folder)
    else:
        folder = agree_on_folder(out, kind.name)
        learner = Learner(data, model, choices=choices, seed=seed, folder=folder)
        on_main(lambda: _begin(folder, learner))
    typer.echo(str(learner.plan) + "\n")
    try:
        _train(learner, resume, recipe, minutes)
    except KeyboardInterrupt:
        # What the data were read with belongs to it: other data would not go on where this stopped.
        words = ["flambeau", "fit", path, *context.args, "--seed", seed, "--resume", folder]
        words += ["--domain", domain] if domain else []
        typer.echo(f"\nInterrupted. Go on with: {shlex.join(map(str, words))}", err=True)
        raise typer.Exit(130) from None
    except Exception:
        if resume is None:
            clear_unused(folder)
        raise
    # With what the fit has measured.
    on_main(lambda: learner.plan.save(folder / "plan.json"))
    scores = {
        part: learner.evaluate(part) for part in ("valid", "test") if len(data.split.part(part))
    }
    names = list(dict.fromkeys(name for score in scores.values() for name in score))
    rows = [[p, *(f"{s[n]:.4f}" if n in s else "" for n in names)] for p, s in scores.items()]
    typer.echo("\n" + text_table(["", *names], rows))
    exported = learner.export(folder / "model")
    typer.echo(f"\nThe model is in {exported}. Use it: flambeau predict {exported} FILES…")


def _train(learner: Learner, resume: Path | None, recipe: str, minutes: float | None) -> None:
    if resume is not None:
        learner.resume(resume)
    elif minutes is not None:
        learner.fit_auto(minutes)
    else:
        RECIPES[recipe](learner)
    if learner.plan["auto"].value is not None:
        typer.echo(f"\nfit_auto: {learner.plan['auto'].reason}")


def check_recipe(name: str) -> None:
    """Refuses a name that is no recipe, before anything is planned."""
    if name not in RECIPES:
        raise ArgumentError(f"--recipe {name} is no recipe. {nearest(name, RECIPES)}")


def _begin(folder: Path, learner: Learner) -> None:
    make_run_folder(folder)
    learner.plan.save(folder / "plan.json")
