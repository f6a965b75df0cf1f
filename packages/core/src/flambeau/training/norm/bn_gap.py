"""Warn about norm layers that normalise differently in training and in evaluation.

The loss of the same train batches is computed twice: once with the norm layers in the mode that the
phase uses for training, once in eval mode. All other layers are in eval mode both times, so that
dropout does not contribute to the difference.
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
from flambeau.training.freeze import has_running_statistics, set_train_modes
from flambeau.training.norm.bn_statistics import layers_with_statistics
from flambeau.training.norm.first_batches import first_batches
from flambeau.training.norm.fresh_statistics import KEY, LAG_STEPS
from flambeau.training.run_state.preserve import preserve
from flambeau.training.step import train_step

if TYPE_CHECKING:
    from flambeau.data.batch import Batch
    from flambeau.training.run import Run

LIMIT = 2.0
"""Largest ratio of the two losses without a warning."""

_BATCHES, _ENOUGH_SAMPLES = 20, 256

_MATTERS = 0.1
"""No warning if the larger loss is below this fraction of the first training loss of the run."""


@dataclass(frozen=True)
class _GapMeasurement:
    """The losses in both modes, as measured by one process.

    Attributes:
        as_trained: Summed loss with the norm layers in the mode that the phase uses for training.
        as_evaluated: Summed loss with the norm layers in eval mode.
        weight: Weight of each sum.
        batches: Number of batches used.
        all_updated: Whether every norm layer in training mode updates its statistics.
    """

    as_trained: float
    as_evaluated: float
    weight: float
    batches: int
    all_updated: bool


def check_train_eval_gap(run: Run) -> None:
    """Warn if the losses in training and evaluation mode differ too much; called at epoch ends.

    It measures after the first epoch of a phase, to find statistics that are never updated, and
    after the last one; consecutive phases that train the same layers count as one. In other epochs
    a difference is normal: running statistics lag behind weights that change fast, until the
    learning rate decreases. Weights, buffers, modes and
    generators are restored.

    Warns:
        FlambeauWarning: One loss is more than ``LIMIT`` times the other.
    """
    state, position, phase = run.state, run.state.position, run.state.phase
    is_last = state.modes_end and position.phase_epoch + 1 >= state.phase_epochs
    is_first = state.same_modes_since == position.phase and position.phase_epoch == 0
    if not (is_first or is_last) or run.gap_warned_phase >= state.same_modes_since:
        return
    if run.components.values.get(KEY) == "off":
        return
    # With fixed statistics both modes are the same.
    if phase.bn in ("eval", "adapt") or not any(
        map(has_running_statistics, run.components.model.modules())
    ):
        return
    if not_resumable_reason(run.components.train):
        return
    gathered = run.gather(_measure_or_none(run))
    measurements = [measured for measured in gathered if measured is not None]
    if len(measurements) < len(gathered):
        return
    # Statistics that are computed anew fit the weights; running ones lag in the first steps.
    is_fresh = run.components.values.get(KEY, "fresh") == "fresh"
    has_enough_steps = is_last and (not is_fresh or state.steps_in_same_modes >= LAG_STEPS)
    if all(measured.all_updated for measured in measurements) and not has_enough_steps:
        return
    weight = sum(measured.weight for measured in measurements)
    if not weight:
        return
    as_trained = sum(measured.as_trained for measured in measurements) / weight
    as_evaluated = sum(measured.as_evaluated for measured in measurements) / weight
    first = state.history.step_losses[0]
    low, high = sorted((as_trained, as_evaluated))
    if low > 0 and high > LIMIT * low and high > _MATTERS * first:
        run.gap_warned_phase = position.phase
        if run.is_main:
            _warn(as_trained, as_evaluated, max(measured.batches for measured in measurements))


def _measure_or_none(run: Run) -> _GapMeasurement | None:
    """Return the measurement; None if it fails in a run with a custom ``train_step``.

    A custom step may not use the loss of the task at all.
    """
    if run.options.train_step is train_step:
        return _measure(run)
    with suppress(Exception):
        return _measure(run)
    return None


def _measure(run: Run) -> _GapMeasurement:
    model, task, state = run.components.model, run.components.task, run.state
    trained, evaluated, weight, samples, count = 0.0, 0.0, 0.0, 0, 0
    with preserve(model, task), torch.no_grad(), run.step.autocast():
        set_train_modes(model, run.trainable, state.phase.bn)
        in_training = [
            module for module in layers_with_statistics(model).values() if module.training
        ]
        means = [_mean(module).clone() for module in in_training]
        model.eval()

        def loss(batch: Batch, training: bool) -> tuple[float, float]:
            for module in in_training:
                module.training = training
            context = replace(state.context, carry=None)  # otherwise as in a step
            total, counted = task.loss(task.forward(model, batch, context), batch)
            return float(total), float(counted)

        for raw in first_batches(run.components, run.data_epoch, _BATCHES):
            batch = run.prepare_train(raw)
            trained += loss(batch, training=True)[0]
            total, counted = loss(batch, training=False)
            evaluated, weight = evaluated + total, weight + counted
            samples, count = samples + len(raw), count + 1
            if samples >= _ENOUGH_SAMPLES:
                break
        pairs = zip(means, in_training, strict=True)
        all_updated = not any(torch.equal(mean, _mean(module)) for mean, module in pairs)
    return _GapMeasurement(trained, evaluated, weight, count, all_updated)


def _mean(module: nn.Module) -> Tensor:
    return cast(Tensor, module.running_mean)


def _warn(as_trained: float, as_evaluated: float, batches: int) -> None:
    larger = as_evaluated > as_trained
    ratio = as_evaluated / as_trained if larger else as_trained / as_evaluated
    why = (
        "The statistics that evaluation uses do not match the data. Train for more epochs, "
        "increase the momentum of these layers (0 never updates them), or compute the statistics "
        'from the data once, choices={"bn": "adapt"}.'
        if larger
        else "The statistics of single batches are too noisy. Use larger batches, or fixed "
        'statistics, choices={"bn": "adapt"}.'
    )
    warnings.warn(
        f"[train-eval-gap] The loss of the same {batches} train batches is {as_trained:.3g} with "
        f"the norm layers as in training and {as_evaluated:.3g} as in evaluation, "
        f"{ratio:.1f} times {'higher' if larger else 'lower'}. {why}",
        FlambeauWarning,
        stacklevel=2,
    )
