"""``untrained_learner``: the learner that the commands ``step`` and ``profile`` look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import typer

from flambeau.cli.data_arguments import domain_of_export, open_data
from flambeau.cli.plan_arguments import check_length, check_model, parse_choices, without_none
from flambeau.learner import Learner


def untrained_learner(command: str, context: typer.Context, path: Path) -> Learner:
    """Return a learner with the plan that ``flambeau fit`` would have with the same options.

    Args:
        command: Name of the command, for messages.
        context: Has the options of the command, and the words of those of the domain.
        path: The data.

    Raises:
        ArgumentError: Options contradict each other, or the architecture is unknown.
    """
    options: Mapping[str, Any] = context.params
    # Dropout draws from torch's own generator.
    torch.manual_seed(options["seed"])  # pyright: ignore[reportUnknownMemberType]
    reading = {key: options[key] for key in ("task", "target", "like")}
    named = options["domain"] or domain_of_export(options["start"])
    kind, data = open_data(command, path, named, context.args, reading)
    check_model(kind, options["model"])
    check_length(options["epochs"], options["steps"], None, None)
    own = {key: options[key] for key in ("task", "lr", "epochs", "steps")}
    return Learner(
        data,
        options["model"],
        choices=parse_choices(options["settings"] or []) | without_none(own),
        start=options["start"],
        seed=options["seed"],
        quiet=True,
    )
