"""Precision of the forward and backward pass: fp32, bf16 or fp16 by autocast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.torch_internals import divided_backward

PrecisionName = Literal["fp32", "bf16", "fp16"]

DTYPES: Mapping[str, torch.dtype | None] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": None,
}
"""dtype of autocast by name in the plan; None leaves every tensor in the dtype it has."""

_NO_AUTOCAST: AbstractContextManager[None] = nullcontext()


class Precision:
    """Autocast for the forward pass and, for fp16, loss scaling around the backward pass.

    In fp16 small gradients would become 0, so the loss is multiplied by a scale that grows until
    gradients overflow and halves then; that step is left out (``NonFiniteGuard`` with
    ``tolerate_overflow``). fp32 and bf16 need none of it.

    Args:
        name: "fp32", "bf16" or "fp16". Weights stay in their own dtype in all of them.
        device: Where the model runs.

    Raises:
        ArgumentError: The name is unknown.
        InputError: The device cannot train in that precision.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name not in DTYPES:
            raise ArgumentError(f"There is no precision {name!r}. {did_you_mean(name, DTYPES)}")
        self.name = name
        self.device = device
        self._dtype = DTYPES[name]
        self._unscaled = False
        self._backward = divided_backward()
        if self._dtype is not None:
            _probe(name, device, self._dtype)
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    @property
    def scales_loss(self) -> bool:
        """Whether gradients may overflow now and then by design."""
        return self.scaler is not None

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass and its loss; for fp32 one that does nothing."""
        if self._dtype is None:
            return _NO_AUTOCAST
        return torch.autocast(self.device.type, self._dtype)

    def backward(self, loss: Tensor, divisor: float = 1.0) -> None:
        """Compute the gradients of ``loss / divisor``, of the scaled loss for fp16."""
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        self._backward(loss, divisor)

    def unscale(self, optimizers: Iterable[Optimizer]) -> None:
        """Gradients as if nothing had been scaled; before the guard, clipping and the update."""
        if self.scaler is None:
            return
        for optimizer in optimizers:
            groups = optimizer.param_groups
            if any(p.grad is not None for group in groups for p in group["params"]):
                self.scaler.unscale_(optimizer)
                self._unscaled = True

    def update(self) -> None:
        """Adapts the scale; once after the optimizers of a step."""
        if self.scaler is not None and self._unscaled:
            self.scaler.update()
            self._unscaled = False

    def state_dict(self) -> dict[str, Any]:
        """The scale and how long it has been good; empty but for fp16. Reads the device."""
        return {} if self.scaler is None else dict(self.scaler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(dict(state))


def _probe(name: str, device: torch.device, dtype: torch.dtype) -> None:
    """Trains a layer of each common kind once: no list of what torch supports is up to date."""
    layers = (
        ((2, 4), (3, 4), torch.nn.functional.linear),
        ((2, 1, 3, 3), (1, 1, 4, 4), torch.nn.functional.conv2d),
    )
    try:
        with torch.enable_grad():
            for weight, inputs, layer in layers:
                parameter = torch.zeros(weight, device=device, requires_grad=True)
                with torch.autocast(device.type, dtype):
                    answer = layer(torch.zeros(inputs, device=device), parameter)
                torch.autograd.grad(answer.float().sum(), parameter)
    except RuntimeError as error:
        raise InputError(
            f"Precision {name!r} does not run on {device} with this torch ({error}). "
            'Use "fp32", or "bf16" where the hardware has it.'
        ) from error
