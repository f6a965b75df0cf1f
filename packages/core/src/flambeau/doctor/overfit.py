"""The full check that trains: whether a copy of the model learns a few samples by heart."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch

from flambeau.doctor.checks_targets import labels_fit
from flambeau.doctor.finding import Finding
from flambeau.doctor.passes import left_as_it_was
from flambeau.doctor.subject import Subject
from flambeau.doctor.words import number

_OVERFIT_SAMPLES, _OVERFIT_STEPS = 16, 150
_OVERFIT_RATES = (1e-3, 1e-2)
_OVERFIT_SHARE = 0.5  # of the first loss that must be gone, for the batch to count as learned


def cannot_overfit(subject: Subject) -> Finding | None:
    """A model that does not even learn a few samples by heart."""
    if subject.course.own_step or not labels_fit(subject):
        return None
    first, last = math.nan, math.inf
    for lr in _OVERFIT_RATES:
        first, reached = _overfit(subject, lr)
        last = min(last, reached) if math.isfinite(reached) else last
        if last <= _OVERFIT_SHARE * first:
            return None
    return Finding(
        "cannot-overfit",
        f"{_OVERFIT_STEPS} steps on {min(_OVERFIT_SAMPLES, len(subject.batch))} samples alone "
        f"bring the loss from {number(first)} only to {number(last)}: a sound model learns so few "
        "by heart.",
        {"first loss": first, "last loss": last, "steps": _OVERFIT_STEPS},
        "Look at equal inputs with different targets, at a bottleneck, at layers that are not in "
        "the graph, and at the loss.",
    )


def _overfit(subject: Subject, lr: float) -> tuple[float, float]:
    """First and best loss of a copy of the model that is trained on a few samples."""
    batch = subject.batch
    batch = batch.first(min(_OVERFIT_SAMPLES, len(batch)))
    losses: list[float] = []
    with left_as_it_was(subject.model, subject.seed), torch.enable_grad():
        model = copy.deepcopy(subject.model).train()
        for module in model.modules():
            if "Dropout" in type(module).__name__:
                module.eval()  # its noise is no part of the question
        learning = [p.requires_grad_() for p in model.parameters() if p.is_floating_point()]
        if not learning:
            return 1.0, 0.0
        optimizer = torch.optim.Adam(learning, lr=lr)
        for _ in range(_OVERFIT_STEPS):
            outputs = subject.task.forward(model, batch, subject.context())
            total, weight = subject.task.loss(outputs, batch)
            loss = total / weight
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                break
            if not loss.requires_grad:
                return losses[0], losses[0]
            optimizer.zero_grad()
            cast(Any, loss).backward()
            cast(Any, optimizer).step()
    finite = [loss for loss in losses if math.isfinite(loss)]
    return (losses[0], min(finite)) if finite else (math.inf, math.inf)
