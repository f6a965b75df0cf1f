"""``Batch``: named inputs, targets and masks of one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from flambeau.errors import InputError


@dataclass(slots=True)
class Batch:
    """The named tensors of a batch, passed from the loader to the loss.

    Attributes:
        inputs: Model inputs by name, in the order of the ``forward`` arguments.
        targets: Targets by name; empty when predicting.
        masks: Boolean masks by name; False marks padding.
        weight: Weight of the batch in a mean: its number of samples or of target tokens. A Python
            number, known before the batch is copied to the device; None where only the loss can
            compute it.
        lr_scale: Factor on the learning rate of the step (sequence length in truncated BPTT).
        indices: Sample numbers, int64 ``(batch,)``, always on the CPU. They key every random
            draw of a sample, so that it does not depend on batch, worker or rank.
        epoch: Epoch of the batch, for keyed draws.
    """

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    masks: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    weight: float | None = None
    lr_scale: float = 1.0
    indices: Tensor | None = None
    epoch: int = 0

    def __len__(self) -> int:
        """Number of samples: the size of the first input's first dimension."""
        return next(iter(self.inputs.values())).shape[0]

    @property
    def input(self) -> Tensor:
        """The only input; raises ``InputError`` if there are several."""
        return _only(self.inputs, "input")

    @property
    def target(self) -> Tensor:
        """The only target; raises ``InputError`` if there are several or none."""
        return _only(self.targets, "target")

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with ``function`` applied to every input, target and mask."""
        return replace(
            self,
            inputs={name: function(value) for name, value in self.inputs.items()},
            targets={name: function(value) for name, value in self.targets.items()},
            masks={name: function(value) for name, value in self.masks.items()},
        )

    def first(self, n: int) -> Batch:
        """Return a batch of the first ``n`` samples, with weight ``n``."""
        indices = None if self.indices is None else self.indices[:n]
        return replace(self.map(lambda value: value[:n]), weight=float(n), indices=indices)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        """Return the batch on ``device`` (itself if it is there); ``indices`` stay on the CPU."""
        for value in self.inputs.values():
            if value.device == device:
                return self
            break
        return self.map(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory, from which copies to a GPU can be asynchronous."""
        return self.map(lambda value: value.pin_memory())


def _only(tensors: Mapping[str, Tensor], kind: str) -> Tensor:
    if len(tensors) != 1:
        raise InputError(
            f"batch.{kind} needs exactly one {kind}, but the batch has {len(tensors)} "
            f"({', '.join(tensors) or 'none'}). Select one by name: "
            f"batch.{kind}s['{next(iter(tensors), 'name')}']."
        )
    return next(iter(tensors.values()))
