"""Precision of the forward and backward pass: fp32, or bf16 or fp16 with autocast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.torch_internals import divided_backward, scale_

PrecisionName = Literal["fp32", "bf16", "fp16"]

DTYPES: Mapping[str, torch.dtype | None] = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": None,
}
"""dtype for autocast by the name of the precision in the plan; None disables autocast."""

_NO_AUTOCAST: AbstractContextManager[None] = nullcontext()


class Precision:
    """Autocast for the forward pass and, for fp16, loss scaling around the backward pass.

    In fp16 small gradients would become 0, so the loss is multiplied by a scale. The scale grows
    until gradients overflow; then it is halved and the step is skipped (``NonFiniteGuard`` with
    ``tolerate_overflow``). fp32 and bf16 do not need a scale.

    Args:
        name: "fp32", "bf16" or "fp16". Weights keep their dtype.
        device: The device of the model.

    Raises:
        ArgumentError: The name is unknown.
        InputError: The device cannot train in that precision.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name not in DTYPES:
            raise ArgumentError(f"Unknown precision {name!r}. {did_you_mean(name, DTYPES)}")
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
        """Whether the loss is scaled, so that gradients may overflow in some steps."""
        return self.scaler is not None

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context manager for a forward pass and its loss; no effect for fp32."""
        if self._dtype is None:
            return _NO_AUTOCAST
        return torch.autocast(self.device.type, self._dtype)

    def backward(self, loss: Tensor, divisor: float = 1.0, *, retain_graph: bool = False) -> None:
        """Compute the gradients of ``loss / divisor``, with the scaled loss for fp16."""
        if self.scaler is not None:
            loss = self.scaler.scale(loss)
        if retain_graph:
            torch.autograd.backward(loss / divisor, retain_graph=True)
        else:
            self._backward(loss, divisor)

    def scale(self) -> Tensor | float:
        """Return the scale of the loss, on the device; 1 without fp16."""
        if self.scaler is None:
            return 1.0
        return self.scaler.scale(torch.ones((), device=self.device))

    def unscale(self, optimizers: Iterable[Optimizer]) -> None:
        """Divide gradients by the scale; call before the guard, clipping and the update."""
        if self.scaler is None:
            return
        unscaled: dict[int, tuple[nn.Parameter, Tensor]] = {}
        for optimizer in optimizers:
            present: dict[int, tuple[nn.Parameter, Tensor]] = {
                id(p): (p, p.grad)
                for group in optimizer.param_groups
                for p in group["params"]
                if p.grad is not None
            }
            # A parameter of two optimizers must be divided once.
            shared = [present[key] for key in present.keys() & unscaled.keys()]
            if len(present) == len(shared):
                continue
            for parameter, _ in shared:
                parameter.grad = None
            self.scaler.unscale_(optimizer)
            self._unscaled = True
            for parameter, gradient in shared:
                parameter.grad = gradient
            unscaled |= present

    def update(self, pending: Sequence[Tensor] = ()) -> None:
        """Update the scale; call after the optimizers were stepped.

        Args:
            pending: Gradients of other optimizers, computed with the scale before the update. They
                are multiplied by the ratio of the new scale to the old one.
        """
        if self.scaler is None or not self._unscaled:
            return
        one = torch.ones((), dtype=torch.float32, device=self.device)
        before = self.scaler.scale(one) if pending else one
        self.scaler.update()
        self._unscaled = False
        if pending:
            scale_(pending, self.scaler.scale(one) / before)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the loss scaler, read from the device; empty without fp16."""
        return {} if self.scaler is None else dict(self.scaler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(dict(state))


def _probe(name: str, device: torch.device, dtype: torch.dtype) -> None:
    """Run a linear and a convolution layer once, because support differs between torch versions."""
    layers = (
        ((2, 4), (3, 4), torch.nn.functional.linear),
        ((2, 1, 3, 3), (1, 1, 4, 4), torch.nn.functional.conv2d),
    )
    try:
        with torch.enable_grad():
            for weight, inputs, layer in layers:
                parameter = torch.zeros(weight, device=device, requires_grad=True)
                with torch.autocast(device.type, dtype):
                    output = layer(torch.zeros(inputs, device=device), parameter)
                torch.autograd.grad(output.float().sum(), parameter)
    except RuntimeError as error:
        raise InputError(
            f"This version of torch does not support precision {name!r} on {device} ({error}). "
            'Use "fp32", or "bf16" if the hardware supports it.'
        ) from error
