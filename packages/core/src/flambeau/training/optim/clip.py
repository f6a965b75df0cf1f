"""Compute the gradient norm and clip gradients, without a read from the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.errors import InputError
from flambeau.torch_internals import scale_, total_norm


def gradients_of(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Return the gradients that exist; frozen and unused parameters have none."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def optimized_parameters(optimizers: Iterable[Optimizer]) -> list[nn.Parameter]:
    """Return the parameters of the optimizers; a parameter of several optimizers occurs once."""
    found = {
        id(parameter): parameter
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    return list(found.values())


@torch.no_grad()
def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of all gradients together: a 0-d tensor on their device.

    It is finite if and only if all gradients are finite (and the norm does not overflow the dtype).
    """
    return total_norm(gradients) if gradients else torch.zeros(())


@torch.no_grad()
def clip_gradients(gradients: Sequence[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients in place so that their norm is at most ``max_norm``.

    Returns:
        The norm before clipping, a 0-d tensor on the device. If it is not finite, the gradients are
        invalid, and the non-finite guard masks the step.

    Raises:
        InputError: ``max_norm`` is not positive.

    Source:
        ``torch.nn.utils.clip_grad_norm_``, with the same result to the bit and half of its calls.
    """
    if not max_norm > 0:
        raise InputError(f"max_norm must be a positive norm, not {max_norm}.")
    norm = gradient_norm(gradients)
    if gradients:
        # 1e-6 and the clamp are torch's; a factor of exactly 1 leaves small gradients unchanged.
        scale_(gradients, torch.clamp(max_norm / (norm + 1e-6), max=1.0))
    return norm
