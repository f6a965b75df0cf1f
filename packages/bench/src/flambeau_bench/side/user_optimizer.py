"""``ForLoopAdam``: an optimizer as a user writes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class ForLoopAdam(Optimizer):
    """Adam as a user-defined optimizer: a plain subclass with a for-loop, without a fused form."""

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make one step; ``closure`` computes the loss where a library passes one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["mean"] = torch.zeros_like(parameter)
                    state["square"] = torch.zeros_like(parameter)
                state["step"] += 1
                mean, square, step = state["mean"], state["square"], state["step"]
                mean.lerp_(parameter.grad, 1.0 - beta1)
                square.mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1.0 - beta2)
                size = group["lr"] / (1.0 - beta1**step)
                scale = square.div(1.0 - beta2**step).sqrt_().add_(group["eps"])
                parameter.addcdiv_(mean, scale, value=-size)
        return loss
