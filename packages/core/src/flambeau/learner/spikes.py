"""Find the loss spikes of a learner's training, with the samples of their batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from flambeau.errors import InputError
from flambeau.inspect.loss_spikes import FoundSpike, LossSpike, LossSpikes, find_spikes
from flambeau.learner.fit_steps import (
    FitStep,
    FitSteps,
    find_step,
    fit_of_step,
    restore_plan,
    step_of_loss,
)
from flambeau.learner.sample_texts import SampleTexts
from flambeau.learner.setup import Setup
from flambeau.learner.single_steps import refuse_processes

_MOST_READ = 10
"""Spikes whose batches are read: the largest ones."""

_UNKNOWN = "Samples unknown: "


def loss_spikes(setup: Setup, fits: Sequence[FitSteps]) -> LossSpikes:
    """Return the loss spikes of the learner's history.

    Args:
        setup: The learner's setup.
        fits: The fits of the learner.

    Raises:
        InputError: Several processes train together.
    """
    refuse_processes("loss_spikes reads the batches")
    history = setup.history
    interval, losses = history.loss_interval, list(history.step_losses)
    found = find_spikes(losses, [start // interval for start in _starts(setup, fits)])
    order = sorted(found, key=lambda each: each.deviations, reverse=True)
    read = {each.index for each in order[:_MOST_READ]}
    spikes = [_spike(setup, fits, each, is_read=each.index in read) for each in found]
    if spikes:
        restore_plan(setup)
    return LossSpikes(spikes, losses, interval)


def find_replay(setup: Setup, fits: Sequence[FitSteps], spike: LossSpike) -> FitStep:
    """Return the step of a spike, to make it again.

    Raises:
        InputError: The batch of the step cannot be read again.
    """
    found: FitStep | str
    if setup.history.loss_interval > 1:
        found = _merged(setup.history.loss_interval)
    elif (fit := fit_of_step(fits, spike.step)) is None:
        found = _OF_OTHERS
    else:
        found = find_step(setup, fit, spike.step)
    if isinstance(found, str):
        raise InputError(
            f"Step {spike.step} cannot be made again: {found}. Pass a batch of the train loader: "
            "step_through(batch)."
        )
    return found


_OF_OTHERS = "this learner has not made the step, another one trained the model before"


def _merged(interval: int) -> str:
    return f"the history of a long run has one loss for {interval} steps together"


def _starts(setup: Setup, fits: Sequence[FitSteps]) -> list[int]:
    """Return the numbers of the losses with which fits and phases start."""
    starts = [fit.first_loss for fit in fits]
    rows = setup.history.rows
    for before, after in pairwise(rows):
        if before.get("phase") != after.get("phase") and isinstance(before.get("step"), int):
            step = int(before["step"])
            fit = fit_of_step(fits, step)
            starts.append(step if fit is None else fit.first_loss + step - fit.first_step)
    return starts


def _spike(
    setup: Setup, fits: Sequence[FitSteps], found: FoundSpike, *, is_read: bool
) -> LossSpike:
    losses, interval = setup.history.step_losses, setup.history.loss_interval
    fit, step = step_of_loss(fits, found.index * interval)
    part = losses[found.index : found.last + 1]
    spike = LossSpike(
        step,
        max(part, key=lambda loss: (math.isnan(loss), loss)),
        found.usual,
        found.deviations,
        (found.last + 1 - found.index) * interval,
        checkpoint=_checkpoint_before(setup, step),
    )
    if interval > 1:
        return replace(spike, note=f"{_UNKNOWN}{_merged(interval)}.")
    if fit is None:
        return replace(spike, note=f"{_UNKNOWN}{_OF_OTHERS}.")
    made = find_step(setup, fit, step)
    if isinstance(made, str):
        return replace(spike, note=f"{_UNKNOWN}{made}.")
    spike = replace(spike, epoch=made.epoch, epoch_step=made.epoch_step)
    if not is_read:
        note = f"The samples of the {_MOST_READ} largest spikes were read."
        return replace(spike, note=note)
    return _with_samples(setup, spike, made)


def _with_samples(setup: Setup, spike: LossSpike, made: FitStep) -> LossSpike:
    texts = SampleTexts(setup.data, made.components.train)
    numbers: list[int] = []
    for batch in made.micro_batches():
        found, why_not = texts.numbers(batch)
        if why_not:
            return replace(spike, note=f"{_UNKNOWN}{why_not}.")
        numbers += found
    captions = tuple("" if each is None else each.caption for each in texts.previews(numbers))
    return replace(spike, samples=tuple(numbers), captions=captions)


def _checkpoint_before(setup: Setup, step: int) -> Path | None:
    """Return the newest checkpoint of the run that was written before a step."""
    from flambeau.artefact.checkpoint_files import checkpoint_step, checkpoints_of

    folder = setup.folder or setup.own_folder
    found = [] if folder is None else checkpoints_of(folder)
    return next((path for path in found if checkpoint_step(path) <= step), None)
