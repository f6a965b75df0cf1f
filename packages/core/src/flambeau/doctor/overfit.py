"""The full check that trains: whether a copy of the model learns a few samples by heart."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch

from flambeau.data.batch import Batch
from flambeau.doctor.checks_targets import labels_fit
from flambeau.doctor.finding import Finding
from flambeau.doctor.passes import left_as_it_was
from flambeau.doctor.readings import distinct
from flambeau.doctor.subject import Subject
from flambeau.doctor.words import number
from flambeau.task.classification import Classification
from flambeau.task.regression import Regression

_SAMPLES, _STEPS = 16, 150
_RATES = (1e-3, 1e-2)
# A model of fewer parameters may be too small to know so many samples by heart (a linear one).
_PARAMETERS_A_SAMPLE = 20
_LEARNED = 0.9  # of the loss of an answer that is the same for all samples


def cannot_overfit(subject: Subject) -> Finding | None:
    """A model that does not even learn a few samples by heart."""
    size = sum(p.numel() for p in subject.model.parameters() if p.is_floating_point())
    if subject.course.own_step or not labels_fit(subject) or size < _SAMPLES * _PARAMETERS_A_SAMPLE:
        return None
    batch = subject.batch
    batch = batch.first(min(_SAMPLES, len(batch)))
    first, last = math.nan, math.inf
    for lr in _RATES:
        losses = _losses(subject, batch, lr)
        if not losses:
            return None  # the loss is not finite or has no gradient, which has checks of its own
        first, last = losses[0], min(last, *losses)
        if last <= _LEARNED * min(first, _of_one_answer(subject, batch)):
            return None
    return Finding(
        "cannot-overfit",
        f"{_STEPS} steps on {len(batch)} samples alone bring the loss from {number(first)} only to "
        f"{number(last)}, which one answer for all of them would give too: a sound model learns so "
        "few by heart.",
        {"first loss": first, "last loss": last, "steps": _STEPS, "samples": len(batch)},
        "Look at equal inputs with different targets, at a bottleneck, at layers that are not in "
        "the graph, and at the loss.",
    )


def _losses(subject: Subject, batch: Batch, lr: float) -> list[float]:
    """The loss of each step of a copy of the model that sees nothing but ``batch``."""
    losses: list[float] = []
    with left_as_it_was(subject.model, subject.seed), torch.enable_grad():
        model, task = copy.deepcopy(subject.model).train(), copy.copy(subject.task)
        for module in model.modules():
            if "Dropout" in type(module).__name__:
                module.eval()  # its noise is no part of the question
        learning = [p.requires_grad_() for p in model.parameters() if p.is_floating_point()]
        optimizer = torch.optim.Adam(learning, lr=lr)
        for _ in range(_STEPS):
            outputs = task.forward(model, batch, subject.context())
            total, weight = task.loss(outputs, batch)
            loss = total / weight
            if not loss.requires_grad or not math.isfinite(float(loss.detach())):
                break
            losses.append(float(loss.detach()))
            optimizer.zero_grad()
            cast(Any, loss).backward()
            cast(Any, optimizer).step()
    return losses


def _of_one_answer(subject: Subject, batch: Batch) -> float:
    """The least loss of an answer that is the same for all samples; infinite where unknown."""
    task = subject.task
    if isinstance(task, Classification) and not batch.target.is_floating_point():
        shares = distinct(batch.target)[1] / batch.target.numel()
        return float(-(shares * shares.log()).sum())
    if isinstance(task, Regression) and task.loss_kind == "mse":
        return float(task.learned(batch.target).float().var(0, correction=0).mean())
    return math.inf
