"""Report gradients of ``loss.backward()`` that are added to those left by another update."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor
from torch.optim import Optimizer

from flambeau.errors import FlambeauWarning
from flambeau.training.optim.clip import optimized_parameters


class GradientWatch:
    """Counts the backward passes that reach the first parameter of each of several optimizers.

    After an update of one optimizer ``step.backward`` starts from cleared gradients, but
    ``loss.backward()`` adds to those that the other optimizers still have.

    Args:
        optimizers: The optimizers by name.
    """

    def __init__(self, optimizers: Mapping[str, Optimizer]) -> None:
        self._passes = dict.fromkeys(optimizers, 0)
        self._left: dict[str, int] = {}  # passes of optimizers that had gradients after an update
        self._first: dict[str, Tensor] = {}
        for name, optimizer in optimizers.items():
            trained = (p for p in optimized_parameters([optimizer]) if p.requires_grad)
            first = next(trained, None)
            if first is not None:
                self._first[name] = first
        self._handles: list[Any] = [
            cast("Any", first).register_post_accumulate_grad_hook(self._counter(name))
            for name, first in self._first.items()
        ]

    def _counter(self, name: str) -> Callable[[Tensor], None]:
        def count(parameter: Tensor) -> None:
            self._passes[name] += 1

        return count

    def cleared(self) -> None:
        """Note that all gradients were cleared."""
        self._left = {}

    def updated(self, name: str | None) -> None:
        """Note which optimizers still have gradients after an update of ``name``."""
        self._left = {
            key: self._passes[key]
            for key, first in self._first.items()
            if name is not None and key != name and first.grad is not None
        }

    def check(self, name: str | None) -> None:
        """Warn once if an optimizer is updated with gradients from before and after an update.

        Warns:
            FlambeauWarning: [raw-backward] The gradients are the sum of two losses.
        """
        for key in self._left if name is None else {name} & self._left.keys():
            if self._passes[key] != self._left[key]:
                self.close()
                warnings.warn(
                    "[raw-backward] The train_step calls loss.backward() after an update of "
                    f"another optimizer, so the gradients of {key!r} are the sum of both losses. "
                    "Call step.backward(loss), which starts from cleared gradients.",
                    FlambeauWarning,
                    stacklevel=4,
                )
                return

    def close(self) -> None:
        """Remove the hooks; nothing is reported from now on."""
        for handle in self._handles:
            handle.remove()
        self._first = {}
        self._left = {}
