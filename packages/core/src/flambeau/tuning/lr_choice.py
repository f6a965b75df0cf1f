"""Decide whether a run first measures its learning rate; record the result in the plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flambeau.data.loader import not_resumable_reason
from flambeau.phases.phase import Phase
from flambeau.plan.choice import Choice
from flambeau.training.options import TrainingOptions
from flambeau.training.step import train_step
from flambeau.training.step_intervals import count_steps_of

if TYPE_CHECKING:
    from flambeau.tuning.lr_finder import Start
    from flambeau.tuning.lr_result import LearningRate

LARGEST_SHARE = 0.05
"""Largest share of the run's steps for measuring the learning rate."""

_KEY = "lr_find"


def should_measure_lr(choice: Choice, options: TrainingOptions) -> bool:
    """Return whether a run should measure its learning rate.

    It should if a rule chose the learning rate with a confidence below 0.5, because no rate is
    known for the architecture, and it has not been measured before. It should not with a custom
    train step or optimizer: these may keep state, and may need another range of learning rates.
    """
    is_standard = options.optimizer is None and options.train_step is train_step
    unsure = choice.source == "rule" and choice.confidence < 0.5
    return unsure and is_standard and _KEY not in choice.evidence


def measure_lr(
    choice: Choice, start: Start, phases: Sequence[Phase], log: Callable[[str], None]
) -> Choice:
    """Return the choice for "lr" of a run, measured if the run is long enough.

    Measuring takes at least 60 steps and at most a twentieth of the run's steps. If the run is too
    short, or the train loader cannot repeat its batches, ``choice`` itself is returned. Otherwise
    reason and evidence record the result, so a replay of the plan does not measure again.

    Args:
        choice: The choice of the rule.
        start: Components, options and phase of the run.
        phases: The phases of the run, which give its length.
        log: Called with one line before and one after measuring.
    """
    from flambeau.tuning.lr_finder import MAX_STEPS, MIN_STEPS, find

    total = count_steps_of(
        phases, start.components.train, start.options.accumulate, start.position.epoch
    )
    most = min(MAX_STEPS, int(LARGEST_SHARE * total))
    if most < MIN_STEPS or not_resumable_reason(start.components.train):
        return choice
    log(f"No default learning rate is known for this model; running lr_find (up to {most} steps).")
    found = find(start, most)
    log(f"{found}")
    return choice_from_result(found, choice, total)


def choice_from_result(found: LearningRate, before: Choice, run_steps: int) -> Choice:
    """Return the measured rate as a choice of the plan, or the previous choice with the reason.

    Args:
        found: The result of lr_find.
        before: The choice that it replaces, whose value is the fallback.
        run_steps: Steps of the run that will follow.
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
        reason = f"{before.reason} lr_find found no learning rate: {found.reason} ({cost})."
        return replace(before, reason=reason, evidence=evidence)
    others = tuple(rate for rate in (found.low, found.high) if rate != found.value)
    return Choice(
        "lr",
        found.value,
        f"lr_find measured it: {found.summary()} ({cost}).",
        evidence=evidence,
        alternatives=others,
        confidence=0.8 if found.high < 5 * found.low else 0.6,
        override=before.override,
    )


def _rounded(value: float) -> float | None:
    """Return the value rounded for JSON, or None for infinity (a diverged run)."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
