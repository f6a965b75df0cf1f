"""``flambeau demo NAME``: a whole run on data that the domain makes itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from flambeau import domain as domains
from flambeau.artefact.predictor import Predictor
from flambeau.cli.source import given, make_run_folder
from flambeau.errors import InputError, MissingDependencyError
from flambeau.learner import Learner
from flambeau.learner.run_folder import new_run_folder
from flambeau.report import baseline_scores, plot_history, text_table
from flambeau.report.baselines import InMemorySamples

SAMPLES = 8_000


def demo(
    name: Annotated[str, typer.Argument(help="The kind of data: vision, …")] = "vision",
    samples: Annotated[int, typer.Option(help="How many samples to make.")] = SAMPLES,
    epochs: Annotated[int | None, typer.Option(help="Passes over the train set.")] = None,
    seed: Annotated[int, typer.Option(help="Key of every random draw.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; by default a new one under runs/.")
    ] = None,
) -> None:
    """Makes a data set, shows the plan, trains, scores, exports and predicts: the whole line."""
    domain = domains.get(name)
    if domain.demo is None:
        raise InputError(
            f"The domain {name!r} has no demo. `flambeau domains` lists what is there."
        )
    started = time.perf_counter()
    typer.echo(f"Making {samples:,} samples …")
    data = domain.demo(samples, seed)
    typer.echo(data.report() + "\n")
    folder = out or new_run_folder(f"demo-{name}")
    learner = Learner(data, choices=given({"epochs": epochs}), seed=seed, folder=folder)
    typer.echo(str(learner.plan) + "\n")
    make_run_folder(folder)
    learner.plan.save(folder / "plan.json")
    learner.fit()
    typer.echo("\n" + compare(learner))
    exported = learner.export(folder / "model")
    predictor = Predictor.load(exported)
    items = list(data.raw("test"))
    answers = predictor.predict(items)
    written = pictures(learner, predictor, answers, folder)
    typer.echo("\nThe export, loaded again, answers for the first five test samples:")
    for item, answer in zip(items[:5], answers, strict=False):
        # A sentence says what was asked; a picture stands in predictions.png.
        typer.echo(f"  {item}\n    → {answer}" if isinstance(item, str) else f"  {answer}")
    typer.echo(f"\n{time.perf_counter() - started:.0f} s in all. The run is in {folder}/:")
    typer.echo(f"  model/            predict with it: flambeau predict {exported} FILES…")
    for path, what in written:
        typer.echo(f"  {path.name:<17} {what}")
    typer.echo("\nNext: flambeau fit YOUR_FOLDER, or in Python: Learner(data).fit()")


def compare(learner: Learner) -> str:
    """Test scores beside those of baselines that need no network."""
    ours = learner.evaluate("test")
    metric = next(name for name in ours if name != "loss")
    parts = learner.built
    train, test = (cast("InMemorySamples", parts.dataset(part)) for part in ("train", "test"))
    baselines = baseline_scores(train, test, learner.task)
    rows = [[name, f"{scores[metric]:.3f}"] for name, scores in baselines.items()]
    rows.append([f"flambeau, {learner.plan.values['architecture']}", f"{ours[metric]:.3f}"])
    return text_table(["on the test set", metric], rows)


def pictures(
    learner: Learner, predictor: Predictor, answers: list[Any], folder: Path
) -> list[tuple[Path, str]]:
    """Curves, and what the domain can draw of predictions and of where the model looked."""
    data: Any = learner.data
    drawn: list[tuple[str, str, Callable[[Path], object]]] = [
        ("curves.png", "loss, score and learning rate", partial(plot_history, learner.history))
    ]
    if hasattr(data, "show_predictions"):
        drawn.append(
            (
                "predictions.png",
                "test samples with what was answered",
                lambda path: data.show_predictions(answers, part="test", path=path),
            )
        )
    if hasattr(data, "show_attention"):
        drawn.append(
            (
                "attention.png",
                "what each word of an answer looked at",
                lambda path: data.show_attention(predictor, part="test", path=path),
            )
        )
    written: list[tuple[Path, str]] = []
    for name, what, draw in drawn:
        try:
            draw(folder / name)
        except MissingDependencyError as error:
            typer.echo(f"No {name}: {error}")
        else:
            written.append((folder / name, what))
    return written
