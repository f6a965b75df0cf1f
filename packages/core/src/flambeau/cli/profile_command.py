"""``flambeau profile PATH``: show where the time of a training step goes, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

TimedSteps = Annotated[int, typer.Option(help="Largest number of steps that are timed.")]
"""The option ``--timed``."""

TryChanges = Annotated[
    bool, typer.Option(help="Try the changes for the bottleneck, or only compute their gain.")
]
"""The options ``--try-changes`` and ``--no-try-changes``."""

TraceFile = Annotated[
    Path | None, typer.Option(help="Write the trace of torch.profiler to this file (JSON).")
]
"""The option ``--trace``."""


def profile(  # noqa: PLR0913, PLR0917 a command's options are its arguments
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
    timed: TimedSteps = 30,
    try_changes: TryChanges = True,
    trace: TraceFile = None,
) -> None:
    """Show where the time of a training step goes, and try what would make it shorter.

    The steps are those of `flambeau fit` with the same options. Nothing is trained, and only the
    trace is written.
    """
    learner = untrained_learner("profile", context, path)
    typer.echo(learner.data.report() + "\n")
    typer.echo(str(learner.profile(timed, try_changes=try_changes, trace=trace)))
