"""``Batch``: what a model is trained on, with every part named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from flambeau.errors import InputError


@dataclass(slots=True)
class Batch:
    """Named tensors that travel together from the loader to the loss.

    Attributes:
        inputs: What the model sees, in the order of its ``forward`` arguments.
        targets: What it should answer; empty when predicting.
        masks: True where a position counts, for padded data.
        weight: How much the batch counts in a mean: samples, or target tokens. A plain number,
            known on the host before the batch is on the device; None where only the loss knows.
        lr_scale: Factor on the learning rate of the step (sequence length in truncated BPTT).
        indices: Sample numbers, int64 ``(batch,)``, always on the CPU. They key every random
            draw of a sample, so that it does not depend on batch, worker or rank.
        epoch: The epoch the batch belongs to, for keyed draws.
    """

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    masks: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    weight: float | None = None
    lr_scale: float = 1.0
    indices: Tensor | None = None
    epoch: int = 0

    def __len__(self) -> int:
        """Samples in the batch: the first axis of the first input."""
        return next(iter(self.inputs.values())).shape[0]

    @property
    def input(self) -> Tensor:
        """The only input; an error where there are several."""
        return _only(self.inputs, "input")

    @property
    def target(self) -> Tensor:
        """The only target; an error where there are several or none."""
        return _only(self.targets, "target")

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with ``function`` applied to every input, target and mask."""
        return replace(
            self,
            inputs={name: function(value) for name, value in self.inputs.items()},
            targets={name: function(value) for name, value in self.targets.items()},
            masks={name: function(value) for name, value in self.masks.items()},
        )

    def first(self, n: int) -> Batch:
        """The first ``n`` samples, which are then what the batch counts."""
        indices = None if self.indices is None else self.indices[:n]
        return replace(self.map(lambda value: value[:n]), weight=float(n), indices=indices)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        """The batch on ``device``; itself when it is there already. ``indices`` stay on the CPU."""
        for value in self.inputs.values():
            if value.device == device:
                return self
            break
        return self.map(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, from which a GPU copies without blocking."""
        return self.map(lambda value: value.pin_memory())


def _only(parts: Mapping[str, Tensor], kind: str) -> Tensor:
    if len(parts) != 1:
        raise InputError(
            f"The batch has {len(parts)} {kind}s ({', '.join(parts) or 'none'}), not exactly one. "
            f"Name the one you mean: batch.{kind}s['{next(iter(parts), 'name')}']."
        )
    return next(iter(parts.values()))
