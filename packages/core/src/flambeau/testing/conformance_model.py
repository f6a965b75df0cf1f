"""Conformance checks of models and tasks: a finite loss, and gradients for all parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flambeau.testing.conformance_report import conformance_error
from flambeau.testing.domain_under_test import DomainUnderTest
from flambeau.wording import name_some


def check_loss_is_finite(tested: DomainUnderTest) -> None:
    """Check that the loss of a training batch is a finite sum with a weight above 0."""
    for name in tested.models:
        model = tested.build(name).train()
        batch = next(tested.training_batches(1))
        total, weight = tested.training_loss(model, batch)
        if not isinstance(total, Tensor) or total.ndim != 0:
            raise conformance_error(
                f"{name}: the summed loss is {total!r:.80}, not a 0-d tensor.",
                "the step sums losses over micro-batches",
                "return (loss.sum(), weight)",
            )
        loss, count = float(total.detach()), float(weight)
        if not math.isfinite(loss) or not 0 < count < math.inf:
            raise conformance_error(
                f"{name}: the loss of the first batch is {loss} with weight {count}.",
                "training would stop at its first step",
                "check normalisation, initial weights and empty targets; return the number of "
                "terms of the sum as the weight",
            )


def check_every_parameter_gets_a_gradient(tested: DomainUnderTest) -> None:
    """Check that two training batches give every trainable parameter a finite gradient."""
    for name in tested.models:
        model = tested.build(name).train()
        for batch in tested.training_batches(2):
            total, weight = tested.training_loss(model, batch)
            if not total.requires_grad:
                raise conformance_error(
                    f"{name}: the loss does not depend on the parameters.",
                    "the model would not be trained",
                    "remove detach(), no_grad() or .item() between the parameters and the loss",
                )
            (total / weight).backward()
        trainable = [(key, value) for key, value in model.named_parameters() if value.requires_grad]
        missing = [key for key, value in trainable if value.grad is None]
        if missing:
            raise conformance_error(
                f"{name}: {len(missing)} parameters get no gradient ({name_some(missing, 3)}).",
                "they keep their initial values, and distributed training waits for them",
                "use them in forward, remove them, or set requires_grad=False",
            )
        wrong = [key for key, value in trainable if not _is_finite(value.grad)]
        if wrong:
            raise conformance_error(
                f"{name}: {len(wrong)} parameters get a gradient that is not finite "
                f"({name_some(wrong, 3)}).",
                "one optimizer step would make the weights NaN",
                "look for sqrt, log or division at 0, and for masks that exclude everything",
            )


def _is_finite(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(torch.isfinite(gradient).all())
