"""``flambeau step PATH``: show the values of one training step as a table, without training."""

from __future__ import annotations

import typer

from flambeau.cli.data_arguments import DataPath, DomainName, LikeExport, TargetName, TaskName
from flambeau.cli.plan_arguments import (
    Epochs,
    ModelName,
    PeakRate,
    Seed,
    Settings,
    StartExport,
    Steps,
)
from flambeau.cli.untrained_learner import untrained_learner


def step(  # noqa: PLR0913, PLR0917 a command's options are its arguments
    context: typer.Context,
    path: DataPath,
    model: ModelName = None,
    epochs: Epochs = None,
    steps: Steps = None,
    lr: PeakRate = None,
    start: StartExport = None,
    like: LikeExport = None,
    seed: Seed = 0,
    domain: DomainName = None,
    task: TaskName = None,
    target: TargetName = None,
    settings: Settings = None,
) -> None:
    """Show the values of the first training step, from the raw samples to the new weights.

    The step is that of `flambeau fit` with the same options. Nothing is trained or written.
    """
    learner = untrained_learner("step", context, path)
    stages = learner.step_through()
    typer.echo(f"{learner.data.report()}\n\n{stages}")
    if stages.error is not None:
        raise stages.error
