"""``flambeau step PATH``: show the values of one training step as a table, without training."""

from __future__ import annotations

import torch
import typer

from flambeau.cli.data_arguments import (
    DataPath,
    DomainName,
    LikeExport,
    TargetName,
    TaskName,
    domain_of_export,
    open_data,
)
from flambeau.cli.plan_arguments import (
    Epochs,
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
from flambeau.learner import Learner


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
    # Dropout draws from torch's own generator.
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
    options = {"task": task, "target": target, "like": like}
    named = domain or domain_of_export(start)
    kind, data = open_data("step", path, named, context.args, options)
    check_model(kind, model)
    check_length(epochs, steps, None, None)
    own = {"task": task, "lr": lr, "epochs": epochs, "steps": steps}
    choices = parse_choices(settings or []) | without_none(own)
    learner = Learner(data, model, choices=choices, start=start, seed=seed, quiet=True)
    stages = learner.step_through()
    typer.echo(f"{data.report()}\n\n{stages}")
    if stages.error is not None:
        raise stages.error
