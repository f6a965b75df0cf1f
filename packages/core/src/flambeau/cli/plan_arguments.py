"""The command-line arguments that set choices of the plan, such as ``--model`` and ``--set``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flambeau.domain import Domain
from flambeau.errors import ArgumentError, did_you_mean

ModelName = Annotated[str | None, typer.Option(help="Name of an architecture.")]
"""The option ``--model``."""

Epochs = Annotated[int | None, typer.Option(help="Number of epochs.")]
"""The option ``--epochs``."""

PeakRate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
"""The option ``--lr``."""

Seed = Annotated[int, typer.Option(help="Seed of all random numbers.")]
"""The option ``--seed``."""

Steps = Annotated[int | None, typer.Option(help="Number of optimizer steps, in place of epochs.")]
"""The option ``--steps``."""

StartExport = Annotated[
    Path | None, typer.Option("--start", help="Train the export in this folder further.")
]
"""The option ``--start``."""

EvaluateEvery = Annotated[
    int | None,
    typer.Option(help="Optimizer steps between two evaluations; by default those of one epoch."),
]
"""The option ``--evaluate-every``."""

Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Set a choice of the plan: --set batch_size=64.")
]
"""The option ``--set``, which can be repeated."""


def parse_choices(settings: Sequence[str]) -> dict[str, Any]:
    """Return ``key=value`` pairs as choices; a value is parsed as JSON if possible, else text.

    Raises:
        ArgumentError: A setting has no ``=``.
    """
    choices: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ArgumentError(
                f"--set {setting!r} must have the form key=value, such as --set batch_size=64."
            )
        choices[key] = _parse_value(text)
    return choices


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def check_model(domain: Domain, model: str | None) -> None:
    """Raise an ArgumentError if ``model`` is not an architecture of the domain."""
    if model is not None and model not in domain.models:
        raise ArgumentError(
            f"Unknown architecture in --model {model} for {domain.name} data. "
            f"{did_you_mean(model, domain.models)}"
        )


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries whose value is not None."""
    return {key: value for key, value in values.items() if value is not None}


def check_length(
    epochs: int | None, steps: int | None, minutes: float | None, evaluate_every: int | None
) -> None:
    """Check that the options for the length of a run do not contradict each other.

    Raises:
        ArgumentError: ``--steps`` is combined with ``--epochs`` or ``--minutes``, or
            ``--evaluate-every`` with ``--minutes``.
    """
    if steps is not None and (epochs is not None or minutes is not None):
        other = f"--epochs {epochs}" if epochs is not None else f"--minutes {minutes:g}"
        raise ArgumentError(
            f"--steps {steps} and {other} both set the run's length. Give only one."
        )
    if evaluate_every is not None and minutes is not None:
        raise ArgumentError(
            f"--evaluate-every {evaluate_every} cannot be used with --minutes, which chooses the "
            "interval between evaluations by their cost. Remove one of the two options."
        )
