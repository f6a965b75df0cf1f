"""The full check that trains a copy of the model: can it overfit a few samples?"""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch

from flambeau.data.batch import Batch
from flambeau.doctor.finding import Finding
from flambeau.doctor.recorded_pass import preserved_with_seed
from flambeau.doctor.target_checks import labels_fit
from flambeau.doctor.training_setup import TrainingSetup
from flambeau.doctor.typed_torch import unique_counts
from flambeau.wording import format_number

_SAMPLES, _STEPS = 16, 150
_RATES = (1e-3, 1e-2)
# With fewer parameters a model (a linear one) may be unable to memorise that many samples.
_PARAMETERS_PER_SAMPLE = 20
_LEARNED = 0.9  # of the loss of one constant prediction for all samples


def cannot_overfit(setup: TrainingSetup) -> Finding | None:
    """Find a model that cannot overfit even a few samples."""
    size = sum(p.numel() for p in setup.model.parameters() if p.is_floating_point())
    if setup.fit_settings.custom_step or not labels_fit(setup):
        return None
    if size < _SAMPLES * _PARAMETERS_PER_SAMPLE:
        return None
    batch = setup.batch
    batch = batch.first(min(_SAMPLES, len(batch)))
    first, last = math.nan, math.inf
    for lr in _RATES:
        losses = _train_copy(setup, batch, lr)
        if not losses:
            return None  # other checks report a loss that is not finite or has no gradient
        first, last = losses[0], min(last, *losses)
        if last <= _LEARNED * min(first, _constant_prediction_loss(setup, batch)):
            return None
    return Finding(
        "cannot-overfit",
        f"{_STEPS} steps on the same {len(batch)} samples reduce the loss only from "
        f"{format_number(first)} to {format_number(last)}, which the same prediction for all "
        "samples would reach too. A correct model overfits so few samples.",
        {"first loss": first, "last loss": last, "steps": _STEPS, "samples": len(batch)},
        "Look for equal inputs with different targets, a bottleneck, layers that are detached from "
        "the graph, and a wrong loss.",
    )


def _train_copy(setup: TrainingSetup, batch: Batch, lr: float) -> list[float]:
    """Train a copy of the model on ``batch`` alone and return the loss of each step."""
    losses: list[float] = []
    with preserved_with_seed(setup.model, setup.seed, setup.task), torch.enable_grad():
        model, task = copy.deepcopy(setup.model).train(), copy.copy(setup.task)
        for module in model.modules():
            if "Dropout" in type(module).__name__:
                module.eval()  # its noise would hide whether the loss falls
        trainable = [p.requires_grad_() for p in model.parameters() if p.is_floating_point()]
        optimizer = torch.optim.Adam(trainable, lr=lr)
        for _ in range(_STEPS):
            outputs = task.forward(model, batch, setup.step_context())
            total, weight = task.loss(outputs, batch)
            loss = total / weight
            if not loss.requires_grad or not math.isfinite(float(loss.detach())):
                break
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            cast(Any, loss).backward()
            cast(Any, optimizer).step()
    return losses


def _constant_prediction_loss(setup: TrainingSetup, batch: Batch) -> float:
    """Return the lowest loss of a constant prediction for all samples; infinity if unknown."""
    task = setup.task
    if task.kind == "classification" and not batch.target.is_floating_point():
        shares = unique_counts(batch.target)[1] / batch.target.numel()
        return float(-(shares * shares.log()).sum())
    if task.standard_loss == "mse":
        return float(task.standardise(batch.target).float().var(0, correction=0).mean())
    return math.inf
