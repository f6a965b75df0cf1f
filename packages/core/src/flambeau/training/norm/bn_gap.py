"""The alarm for norm layers that normalise otherwise in training than in evaluation.

The loss of the same train batches is computed twice: once with the norm layers in the mode in which
the phase trains them, once in eval mode. Everything else is in eval mode both times, so that
drop-out and the like are no part of the difference.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from flambeau.data.loader import not_resumable_reason
from flambeau.errors import FlambeauWarning
from flambeau.training.norm.bn_statistics import stored_layers
from flambeau.training.norm.first_batches import first_batches
from flambeau.training.norm.freeze import apply_modes, keeps_statistics
from flambeau.training.run_state.preserve import preserve
from flambeau.training.step import train_step

if TYPE_CHECKING:
    from flambeau.data.batch import Batch
    from flambeau.training.run import Run

LIMIT = 2.0
"""How many times larger one loss may be than the other."""

_LEAST_STEPS = 50
"""With torch's momentum of 0.1, moving statistics are by then to 99.5% those of the new data."""

_BATCHES, _ENOUGH_SAMPLES = 20, 256

_MATTERS = 0.1
"""Share of the run's first loss below which the larger of the two losses worries nobody."""


@dataclass(frozen=True)
class _Look:
    """What one process found.

    Attributes:
        as_trained: Summed loss with the norm layers as they are trained.
        as_evaluated: The same as they are evaluated.
        weight: Of both sums.
        batches: How many batches were used.
        all_move: Whether every norm layer in training mode updates its statistics.
    """

    as_trained: float
    as_evaluated: float
    weight: float
    batches: int
    all_move: bool


def look_for_gap(run: Run) -> None:
    """Warns where the losses of the two modes differ too much; at an epoch's end.

    It looks at the end of a phase's first epoch, where it warns of statistics that are never
    updated, and at the end of its last one. In between, moving statistics lag behind weights that
    learn fast, and catch up as the rate falls: that is no fault. Weights, buffers, modes and
    generators stay as they were.

    Warns:
        FlambeauWarning: One loss is more than ``LIMIT`` times the other.
    """
    position, phase = run.state.position, run.state.phase
    is_last = position.phase_epoch + 1 >= phase.epochs
    if (position.phase_epoch > 0 and not is_last) or run.gap_told == position.phase:
        return
    # With fixed statistics both modes are one and the same.
    if phase.bn in ("eval", "adapt") or not any(
        map(keeps_statistics, run.components.model.modules())
    ):
        return
    if not_resumable_reason(run.components.train):
        return
    told = run.gathered(_look_or_none(run))
    looks = [look for look in told if look is not None]
    if len(looks) < len(told):
        return
    steps = position.phase_epoch * run.state.steps_per_epoch + position.epoch_step
    has_settled = is_last and steps >= _LEAST_STEPS
    if all(look.all_move for look in looks) and not has_settled:
        return
    weight = sum(look.weight for look in looks)
    if not weight:
        return
    as_trained = sum(look.as_trained for look in looks) / weight
    as_evaluated = sum(look.as_evaluated for look in looks) / weight
    first = run.state.history.step_losses[0]
    low, high = sorted((as_trained, as_evaluated))
    if low > 0 and high > LIMIT * low and high > _MATTERS * first:
        run.gap_told = position.phase
        if run.is_main:
            _warn(as_trained, as_evaluated, max(look.batches for look in looks))


def _look_or_none(run: Run) -> _Look | None:
    """``_look``; None where a ``train_step`` of the user's own needs no loss of the task."""
    if run.options.train_step is train_step:
        return _look(run)
    with suppress(Exception):
        return _look(run)
    return None


def _look(run: Run) -> _Look:
    model, task, state = run.components.model, run.components.task, run.state
    trained, evaluated, weight, samples, count = 0.0, 0.0, 0.0, 0, 0
    with preserve(model), torch.no_grad(), run.step.autocast():
        apply_modes(model, run.trainable, state.phase.bn)
        moving = [module for module in stored_layers(model).values() if module.training]
        means = [_mean(module).clone() for module in moving]
        model.eval()

        def loss(batch: Batch, training: bool) -> tuple[float, float]:
            for module in moving:
                module.training = training
            context = replace(state.context, carry=None)  # else the same as in a step
            total, counted = task.loss(task.forward(model, batch, context), batch)
            return float(total), float(counted)

        for raw in first_batches(run.components, state.position.epoch, _BATCHES):
            batch = run.prepare_train(raw)
            trained += loss(batch, training=True)[0]
            total, counted = loss(batch, training=False)
            evaluated, weight = evaluated + total, weight + counted
            samples, count = samples + len(raw), count + 1
            if samples >= _ENOUGH_SAMPLES:
                break
        pairs = zip(means, moving, strict=True)
        all_move = not any(torch.equal(mean, _mean(module)) for mean, module in pairs)
    return _Look(trained, evaluated, weight, count, all_move)


def _mean(module: nn.Module) -> Tensor:
    return cast(Tensor, module.running_mean)


def _warn(as_trained: float, as_evaluated: float, batches: int) -> None:
    larger = as_evaluated > as_trained
    ratio = as_evaluated / as_trained if larger else as_trained / as_evaluated
    why = (
        "The statistics that evaluation uses do not fit the data: a few more epochs, a larger "
        "momentum of these layers (one of 0 never updates them), or statistics taken from the data "
        'once, choices={"bn": "adapt"}, bring the two together.'
        if larger
        else "The statistics of single batches are too rough: take larger batches, or statistics "
        'that stay, choices={"bn": "adapt"}.'
    )
    warnings.warn(
        f"[train-eval-gap] The loss of the same {batches} train batches is {as_trained:.3g} with "
        f"the norm layers as they are trained and {as_evaluated:.3g} as they are evaluated, "
        f"{ratio:.1f} times {'more' if larger else 'less'}. {why}",
        FlambeauWarning,
        stacklevel=2,
    )
