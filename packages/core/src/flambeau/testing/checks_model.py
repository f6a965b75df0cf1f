"""Checks of models and tasks: a finite loss, and gradients that reach every parameter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flambeau.testing.report import broken
from flambeau.testing.subject import Subject


def check_loss_is_finite(subject: Subject) -> None:
    """The loss of a training batch is a finite sum with a weight above 0."""
    for name in subject.models:
        model = subject.build(name).train()
        batch = next(subject.training_batches(1))
        total, weight = subject.training_loss(model, batch)
        if not isinstance(total, Tensor) or total.ndim != 0:
            raise broken(
                f"{name}: the task's loss is {total!r:.80}, not a 0-d tensor.",
                "the step sums losses over micro-batches",
                "return (loss.sum(), weight)",
            )
        loss, count = float(total.detach()), float(weight)
        if not math.isfinite(loss) or not 0 < count < math.inf:
            raise broken(
                f"{name}: the loss of the first batch is {loss} with weight {count}.",
                "training would stop at its first step",
                "look at normalisation, initial weights and empty targets; count what the sum "
                "runs over as the weight",
            )


def check_every_parameter_gets_a_gradient(subject: Subject) -> None:
    """Two training batches give every trainable parameter a finite gradient."""
    for name in subject.models:
        model = subject.build(name).train()
        for batch in subject.training_batches(2):
            total, weight = subject.training_loss(model, batch)
            if not total.requires_grad:
                raise broken(
                    f"{name}: the loss does not depend on the parameters.",
                    "nothing would be learnt",
                    "remove detach(), no_grad() or .item() from the way to the loss",
                )
            (total / weight).backward()
        trainable = [(key, value) for key, value in model.named_parameters() if value.requires_grad]
        missing = [key for key, value in trainable if value.grad is None]
        if missing:
            raise broken(
                f"{name}: {len(missing)} parameters get no gradient ({', '.join(missing[:3])}).",
                "they stay at their first values, and distributed training waits for them",
                "use them in forward, drop them, or set requires_grad=False",
            )
        wrong = [key for key, value in trainable if not _is_finite(value.grad)]
        if wrong:
            raise broken(
                f"{name}: {len(wrong)} parameters get a gradient that is not finite "
                f"({', '.join(wrong[:3])}).",
                "one step would ruin the weights",
                "look for sqrt, log or division at 0, and for masks that leave nothing",
            )


def _is_finite(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(torch.isfinite(gradient).all())
