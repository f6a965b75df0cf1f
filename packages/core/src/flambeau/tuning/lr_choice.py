"""When a run measures its learning rate first, and what the plan then says of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flambeau.data.loader import why_not_resumable
from flambeau.plan.choice import Choice
from flambeau.training.options import TrainingOptions
from flambeau.training.step import train_step

if TYPE_CHECKING:
    from flambeau.tuning.lr_finder import Start
    from flambeau.tuning.lr_result import LearningRate

LARGEST_SHARE = 0.05
"""Of the run's steps, that measuring its rate may take."""

_KEY = "lr_find"


def should_measure_lr(choice: Choice, options: TrainingOptions) -> bool:
    """Whether the plan knows so little of the rate that a run should measure it.

    That is where a rule has chosen it with a confidence below 0.5, for an architecture of which
    nothing is documented, and it was not tried before. Steps and optimizers of the user's own are
    left alone: they may remember what they have done, and their rates are their own.
    """
    ours = options.optimizer is None and options.train_step is train_step
    unsure = choice.source == "rule" and choice.confidence < 0.5
    return unsure and ours and _KEY not in choice.evidence


def measure_lr(choice: Choice, start: Start, epochs: int, log: Callable[[str], None]) -> Choice:
    """The choice for "lr" with which a run of ``epochs`` begins.

    It is the same object where the run is too short to repay it (at most a twentieth of its
    steps, at least 60), or where the train loader cannot give the same batches again. Otherwise
    reason and evidence hold the outcome, so that a replay of the plan measures nothing.

    Args:
        choice: That of the rule.
        start: With what the run will train.
        epochs: How long.
        log: Gets a line before and after.
    """
    from flambeau.tuning.lr_finder import MAX_STEPS, MIN_STEPS, find

    per_epoch = -(-start.components.train.steps_per_epoch // start.options.accumulate)
    total = per_epoch * epochs
    most = min(MAX_STEPS, int(LARGEST_SHARE * total))
    if most < MIN_STEPS or why_not_resumable(start.components.train):
        return choice
    log(f"Nothing is known of a good lr here: measuring it with up to {most} steps.")
    found = find(start, most)
    log(f"{found}")
    return choice_from_result(found, choice, total)


def choice_from_result(found: LearningRate, before: Choice, run_steps: int) -> Choice:
    """What was found as a choice of the plan, or the fallback with the reason for it.

    Args:
        found: What the finder says.
        before: The choice it replaces, whose value is the fallback.
        run_steps: Steps of the run that it is for.
    """
    cost = (
        f"{found.steps} steps, {found.steps / run_steps:.1%} of the run's {run_steps:,}, "
        f"in {found.seconds:.1f} s"
    )
    outcome: dict[str, Any] = {
        "steps": found.steps,
        "run_steps": run_steps,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "reason": found.reason,
        "start_loss": _rounded(found.level.loss),
        "runs": [{"lr": _rounded(run.rate), "loss": _rounded(run.loss)} for run in found.runs],
    }
    evidence = {**before.evidence, _KEY: outcome}
    if found.value is None or found.low is None or found.high is None:
        reason = f"{before.reason} Measuring gave no answer: {found.reason} ({cost})."
        return replace(before, reason=reason, evidence=evidence)
    others = tuple(rate for rate in (found.low, found.high) if rate != found.value)
    return Choice(
        "lr",
        found.value,
        f"Measured before the fit: {found.summary()} ({cost}).",
        evidence=evidence,
        alternatives=others,
        confidence=0.8 if found.high < 5 * found.low else 0.6,
        override=before.override,
    )


def _rounded(value: float) -> float | None:
    """For the plan's JSON, which has no infinity: None is a run that broke."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
