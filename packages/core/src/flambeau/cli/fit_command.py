"""``flambeau fit PATH``: train on raw files, evaluate and export the model."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from flambeau.artefact.export_format import EXPORT_OF_RUN
from flambeau.checked_arguments import checked_count
from flambeau.cli.data_arguments import (
    DataPath,
    DomainName,
    LikeExport,
    TargetName,
    TaskName,
    domain_of_export,
    open_data,
)
from flambeau.cli.fold_fit import (
    FoldCount,
    FoldWorkers,
    SeedCount,
    fit_folds,
    fold_arguments,
    remove_if_nothing_trained,
)
from flambeau.cli.output_folder import OutputFolder, make_run_folder
from flambeau.cli.plan_arguments import (
    Epochs,
    EvaluateEvery,
    ModelName,
    PeakRate,
    Seed,
    Settings,
    StartExport,
    Steps,
    check_length,
    check_model,
    parse_choices,
    without_none,
)
from flambeau.data.data import Data
from flambeau.distributed import processes
from flambeau.distributed.processes import run_on_main
from flambeau.errors import ArgumentError, InputError, StorageError, did_you_mean
from flambeau.learner import Learner
from flambeau.learner.recipe_methods import RECIPES
from flambeau.learner.run_folder import agree_on_folder, run_of
from flambeau.plan import Plan
from flambeau.report import text_table
from flambeau.task.task import Task

RecipeName = Annotated[
    str | None, typer.Option(help=f"Training recipe: {', '.join(RECIPES)}; fit by default.")
]
"""The option ``--recipe``."""

Minutes = Annotated[
    float | None,
    typer.Option(help="Train while the score improves, for at most this many minutes."),
]
"""The option ``--minutes``."""

InspectEvery = Annotated[
    int | None,
    typer.Option(help="Watch all layers in every N-th step, and say what is wrong with them."),
]
"""The option ``--inspect-every``."""


def fit(  # noqa: PLR0913, PLR0917 a command's options are its arguments
    context: typer.Context,
    path: DataPath,
    model: ModelName = None,
    epochs: Epochs = None,
    steps: Steps = None,
    evaluate_every: EvaluateEvery = None,
    lr: PeakRate = None,
    recipe: RecipeName = None,
    minutes: Minutes = None,
    folds: FoldCount = None,
    seeds: SeedCount = None,
    fold_workers: FoldWorkers = None,
    inspect_every: InspectEvery = None,
    out: OutputFolder = None,
    start: StartExport = None,
    like: LikeExport = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    seed: Seed = 0,
    domain: DomainName = None,
    task: TaskName = None,
    target: TargetName = None,
    settings: Settings = None,
) -> None:
    """Train on your data, evaluate and export the model.

    Ctrl-C saves a checkpoint and prints the command that continues the run. Options of a single
    domain (--size for images) are listed after the others.
    """
    # Dropout draws from torch's own generator.
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
    options = {"task": task, "target": target, "like": like}
    again = {"domain": domain, **options, "inspect-every": inspect_every}
    if resume is not None:
        _refuse_with_resume(recipe=recipe, minutes=minutes, start=start, out=out)
        _refuse_with_resume(folds=folds, seeds=seeds)
    kind, data = open_data("fit", path, domain or domain_of_export(start), context.args, options)
    check_model(kind, model)
    check_recipe(recipe or "fit")
    typer.echo(data.report() + "\n")
    check_length(epochs, steps, minutes, evaluate_every)
    own = {"task": task, "lr": lr, "epochs": epochs, "steps": steps}
    own["evaluate_every"] = evaluate_every
    choices = parse_choices(settings or []) | without_none(own)
    of_folds = fold_arguments(folds, seeds, recipe, minutes, fold_workers, resume)
    _check_inspect(inspect_every, of_folds)
    if resume is not None:
        folder = run_of(resume) if of_folds is None else resume
        learner = _resumed(data, folder, choices | without_none({"architecture": model}), seed)
    else:
        folder = agree_on_folder(out, kind.name)
        learner = Learner(data, model, choices=choices, start=start, seed=seed, folder=folder)
        run_on_main(lambda: _start_run(folder, learner))
    if inspect_every is not None:
        learner.inspect(inspect_every)
    typer.echo(str(learner.plan) + "\n")
    try:
        _train(learner, folder, resume, recipe or "fit", minutes, of_folds)
    except KeyboardInterrupt:
        words = [path, *context.args, "--seed", seed, "--resume", folder]
        raise _interrupted(words, again) from None
    except Exception:
        if resume is None:
            remove_if_nothing_trained(folder)
        raise


def _finish(learner: Learner, folder: Path) -> None:
    """Calibrate the trained model if there is a part for it, print its scores and export it."""
    if len(learner.data.split.calibration):
        typer.echo("\n" + _calibrate(learner))
    # Saved again with the values that the fit measured.
    run_on_main(lambda: learner.plan.save(folder / "plan.json"))
    typer.echo("\n" + _score_table(learner, folder))
    exported = learner.export(folder / EXPORT_OF_RUN)
    typer.echo(f"\nThe model is in {exported}. Predict with it: flambeau predict {exported} FILES…")


def _interrupted(words: Sequence[object], options: Mapping[str, object]) -> typer.Exit:
    """Print the command that continues the run, including the options for reading the data."""
    given = [word for name, value in options.items() if value for word in (f"--{name}", value)]
    command = shlex.join(map(str, ["flambeau", "fit", *words, *given]))
    typer.echo(f"\nInterrupted. Continue with: {command}", err=True)
    return typer.Exit(130)


def _refuse_with_resume(**options: object) -> None:
    """Raise an ArgumentError for options that are only valid for a new run."""
    for name, value in options.items():
        if value is not None:
            raise ArgumentError(
                f"--{name} {value} cannot be used with --resume: a resumed run keeps its recipe, "
                f"length, starting weights and folder. Remove --{name}, or start a new run without "
                "--resume."
            )


def _resumed(data: Data, folder: Path, choices: Mapping[str, Any], seed: int) -> Learner:
    """Return a learner with the plan of the run in ``folder``; its ``resume`` checks ``choices``.

    Raises:
        ArgumentError: Epochs, steps, learning rate or model differ from those of the run.
    """
    saved = Plan.load(folder / "plan.json")
    # A Learner takes these from the phases or the checkpoint, so that resume cannot compare them.
    options = {
        "epochs": "--epochs",
        "steps": "--steps",
        "evaluate_every": "--evaluate-every",
        "lr": "--lr",
        "architecture": "--model",
    }
    for key, option in options.items():
        if key in choices and choices[key] != saved.values[key]:
            raise ArgumentError(
                f"{option} is {choices[key]}, but the run in {folder} has {saved.values[key]}, and "
                f"a resumed run keeps its settings. Remove {option}, or start a new run without "
                "--resume."
            )
    same = {key: value for key, value in choices.items() if key not in options}
    return Learner(data, plan=saved, choices=same, seed=seed, folder=folder)


def _score_table(learner: Learner, folder: Path) -> str:
    """Return the scores on valid and test as text, with their signatures if the task has any."""
    parts = [part for part in ("valid", "test") if len(learner.data.split.part(part))]
    scores = {part: _scores_of(learner, part, folder) for part in parts}
    names = list(dict.fromkeys(name for score in scores.values() for name in score))
    rows = [[p, *(f"{s[n]:.4f}" if n in s else "" for n in names)] for p, s in scores.items()]
    signatures = [f"\n{name}: {text}" for name, text in learner.task.signatures.items()]
    return text_table(["", *names], rows) + "".join(signatures)


def _scores_of(learner: Learner, part: str, folder: Path) -> Mapping[str, float]:
    """Return the scores on a part, and store the prediction for each sample if that costs nothing.

    A task with an evaluation of its own, and several processes, would predict twice.
    """
    if type(learner.task).evaluate is not Task.evaluate or processes.current() is not None:
        return learner.evaluate(part)
    found = learner.interpret(part)
    try:
        found.save(folder)
    except StorageError as error:
        typer.echo(f"warning: {error} `flambeau runs compare` will lack them.", err=True)
    return found.predictions.scores


def _train(
    learner: Learner,
    folder: Path,
    resume: Path | None,
    recipe: str,
    minutes: float | None,
    of_folds: Mapping[str, Any] | None,
) -> None:
    """Train one model, or those of the folds; print the scores and export to the folder."""
    if of_folds is not None:
        fit_folds(learner, folder, of_folds)
        return
    if resume is not None:
        learner.resume(resume)
    elif minutes is not None:
        learner.fit_auto(minutes)
    else:
        getattr(learner, RECIPES[recipe])()
    if learner.plan["auto"].value is not None:
        typer.echo(f"\nfit_auto: {learner.plan['auto'].reason}")
    if learner.is_inspected:
        run_on_main(lambda: _report_layers(learner, folder))
    _finish(learner, folder)
    _report_spikes(learner)  # last, because it reads samples again


def _report_spikes(learner: Learner) -> None:
    """Print the steps whose loss was far above that of the steps before, if there are any."""
    if processes.initialize() is not None:
        return
    spikes = learner.loss_spikes()
    if spikes:
        typer.echo(f"\nLoss spikes:\n{spikes}")


def _report_layers(learner: Learner, folder: Path) -> None:
    """Print the verdicts on the layers, and write the page about them."""
    from flambeau.report.layer_section import layers_page

    path = layers_page(learner.inspect()).save(folder / "layers.html")
    typer.echo(f"\n{learner.inspect()}\nPlots of the layers are in {path}.")


def _check_inspect(every: int | None, of_folds: Mapping[str, Any] | None) -> None:
    """Refuse ``--inspect-every`` with ``--folds``, and a number below 1.

    Raises:
        ArgumentError: The run trains several models.
        InputError: The number is below 1.
    """
    if every is None:
        return
    checked_count(every, "--inspect-every", unit="steps")
    if of_folds is not None:
        raise ArgumentError(
            f"--inspect-every {every} cannot be used with --folds, which trains several models. "
            "Train one model: remove --folds."
        )


def _calibrate(learner: Learner) -> str:
    """Calibrate the model and return the scores as text, or why it could not be calibrated."""
    from flambeau.task.predicted_intervals import PredictsIntervals

    try:
        return str(learner.calibrate(intervals=isinstance(learner.task, PredictsIntervals)))
    except InputError as error:
        return f"The model is not calibrated: {error}"


def check_recipe(name: str) -> None:
    """Raise an ArgumentError if ``name`` is not a recipe."""
    if name not in RECIPES:
        raise ArgumentError(f"Unknown recipe in --recipe {name}. {did_you_mean(name, RECIPES)}")


def _start_run(folder: Path, learner: Learner) -> None:
    make_run_folder(folder)
    learner.plan.save(folder / "plan.json")
