"""Find the loss spikes of a learner's training, with the samples of their batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from flambeau.errors import FlambeauError, InputError
from flambeau.inspect.loss_spikes import FoundSpike, LossSpike, LossSpikes, find_spikes
from flambeau.learner.fit_steps import (
    FitInputs,
    FitStep,
    FitSteps,
    fit_of_step,
    inputs_of_fit,
    restored_plan,
    step_of_loss,
)
from flambeau.learner.sample_texts import SampleTexts
from flambeau.learner.setup import Setup
from flambeau.learner.single_steps import refuse_processes
from flambeau.wording import first_line

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
    spikes: list[LossSpike] = []
    last: FitSteps | None = None
    inputs: FitInputs | str = _OF_OTHERS
    with restored_plan(setup) if found else nullcontext():
        for each in found:
            fit, step = step_of_loss(fits, each.index * interval)
            if interval > 1:
                inputs = _merged(interval)
            elif fit is not last:  # the loader of a fit is built once
                inputs = _OF_OTHERS if fit is None else inputs_of_fit(setup, fit)
            last = fit
            spikes.append(_spike(setup, inputs, each, step, is_read=each.index in read))
    return LossSpikes(spikes, losses, interval)


def find_replay(setup: Setup, fits: Sequence[FitSteps], spike: LossSpike) -> FitStep:
    """Return the step of a spike, to make it again; use it within ``restored_plan``.

    Raises:
        InputError: The batch of the step cannot be read again.
    """
    found: FitStep | FitInputs | str
    if setup.history.loss_interval > 1:
        found = _merged(setup.history.loss_interval)
    elif (fit := fit_of_step(fits, spike.step)) is None:
        found = _OF_OTHERS
    else:
        found = inputs_of_fit(setup, fit)
    if isinstance(found, FitInputs):
        found = found.find_step(spike.step)
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
    setup: Setup, inputs: FitInputs | str, found: FoundSpike, step: int, *, is_read: bool
) -> LossSpike:
    losses, interval = setup.history.step_losses, setup.history.loss_interval
    part = losses[found.index : found.last + 1]
    spike = LossSpike(
        step,
        max(part, key=lambda loss: (math.isnan(loss), loss)),
        found.usual,
        found.deviations,
        (found.last + 1 - found.index) * interval,
        checkpoint=_checkpoint_before(setup, step),
    )
    made = inputs if isinstance(inputs, str) else inputs.find_step(step)
    if isinstance(made, str):
        return replace(spike, note=f"{_UNKNOWN}{made}.")
    spike = replace(spike, epoch=made.epoch, epoch_step=made.epoch_step)
    if not is_read:
        note = f"The samples of the {_MOST_READ} largest spikes were read."
        return replace(spike, note=note)
    try:
        return _with_samples(setup, spike, made)
    except (FlambeauError, OSError) as error:  # such as a file that was deleted since
        return replace(spike, note=f"{_UNKNOWN}{first_line(error)}")


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
