"""``flambeau demo NAME``: a complete run on synthetic data of a domain."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from flambeau.artefact.predictor import Predictor
from flambeau.cli.output_folder import OutputFolder, make_run_folder
from flambeau.cli.plan_arguments import without_none
from flambeau.domain import get_domain
from flambeau.errors import InputError, MissingDependencyError
from flambeau.learner import Learner
from flambeau.learner.run_folder import new_run_folder
from flambeau.report import baseline_scores, plot_history, text_table
from flambeau.report.baselines import InMemorySamples

SAMPLES = 8_000


def demo(
    name: Annotated[str, typer.Argument(help="Name of a domain: vision, …")] = "vision",
    samples: Annotated[int, typer.Option(help="Number of synthetic samples.")] = SAMPLES,
    epochs: Annotated[int | None, typer.Option(help="Number of epochs.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    out: OutputFolder = None,
) -> None:
    """Train and evaluate on synthetic data of a domain.

    The command runs every step: plan, train, evaluate, export, predict with the export.
    """
    domain = get_domain(name)
    if domain.demo is None:
        raise InputError(
            f"The domain {name!r} has no demo. `flambeau domains` lists the installed domains."
        )
    started = time.perf_counter()
    typer.echo(f"Creating {samples:,} samples …")
    data = domain.demo(samples, seed)
    typer.echo(data.report() + "\n")
    folder = out or new_run_folder(f"demo-{name}")
    learner = Learner(data, choices=without_none({"epochs": epochs}), seed=seed, folder=folder)
    typer.echo(str(learner.plan) + "\n")
    make_run_folder(folder)
    learner.plan.save(folder / "plan.json")
    learner.fit()
    typer.echo("\n" + compare_with_baselines(learner))
    exported = learner.export(folder / "model")
    predictor = Predictor.load(exported)
    items = list(data.raw("test"))
    predictions = predictor.predict(items)
    figures = save_figures(learner, predictor, predictions, folder)
    typer.echo("\nPredictions of the exported model for the first five test samples:")
    for item, prediction in zip(items[:5], predictions, strict=False):
        # A text is printed with its prediction; images are in predictions.png.
        typer.echo(f"  {item}\n    → {prediction}" if isinstance(item, str) else f"  {prediction}")
    typer.echo(f"\nFinished in {time.perf_counter() - started:.0f} s. Files in {folder}/:")
    typer.echo(f"  model/            the exported model: flambeau predict {exported} FILES…")
    for path, content in figures:
        typer.echo(f"  {path.name:<17} {content}")
    typer.echo("\nNext: flambeau fit YOUR_FOLDER, or in Python: Learner(data).fit()")


def compare_with_baselines(learner: Learner) -> str:
    """Return a table of the test scores of the model and of simple baselines."""
    scores = learner.evaluate("test")
    metric = next(name for name in scores if name != "loss")
    built = learner.built
    train, test = (cast("InMemorySamples", built.dataset(part)) for part in ("train", "test"))
    baselines = baseline_scores(train, test, learner.task)
    rows = [[name, f"{values[metric]:.3f}"] for name, values in baselines.items()]
    rows.append([f"flambeau, {learner.plan.values['architecture']}", f"{scores[metric]:.3f}"])
    return text_table(["on the test set", metric], rows)


def save_figures(
    learner: Learner, predictor: Predictor, predictions: list[Any], folder: Path
) -> list[tuple[Path, str]]:
    """Save the training curves, and the figures that the domain can draw.

    Returns:
        Path and content of each figure.
    """
    data: Any = learner.data
    figures: list[tuple[str, str, Callable[[Path], object]]] = [
        ("curves.png", "loss, score and learning rate", partial(plot_history, learner.history))
    ]
    if hasattr(data, "show_predictions"):
        figures.append(
            (
                "predictions.png",
                "test samples with their predictions",
                lambda path: data.show_predictions(predictions, part="test", path=path),
            )
        )
    if hasattr(data, "show_attention"):
        figures.append(
            (
                "attention.png",
                "attention weights of each output token",
                lambda path: data.show_attention(predictor, part="test", path=path),
            )
        )
    saved: list[tuple[Path, str]] = []
    for name, content, draw in figures:
        try:
            draw(folder / name)
        except MissingDependencyError as error:
            typer.echo(f"Cannot draw {name}: {error}")
        else:
            saved.append((folder / name, content))
    return saved
