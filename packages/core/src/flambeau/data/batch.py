"""``Batch``: named inputs, targets and masks of one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.errors import InputError


@dataclass(slots=True)
class Batch:
    """The named tensors of a batch, passed from the loader to the loss.

    Raises:
        InputError: An entry of ``extras`` is not a list with one entry per sample.

    Attributes:
        inputs: Model inputs by name, in the order of the ``forward`` arguments.
        targets: Targets by name; empty when predicting.
        masks: Boolean masks by name; False marks padding.
        weight: Weight of the batch in a mean over batches: its number of samples or of target
            tokens. A Python number, known before the batch is copied to the device; None if only
            the loss can compute it.
        sample_weight: Weight of each sample in loss and metrics, ``(batch,)``, on the device of the
            inputs; None weighs all samples equally. ``weight`` is then its sum, unless the task
            counts tokens. ``docs/weights.md`` compares the weights.
        task_inputs: Tensors by name, with one row per sample, that the task reads and the model
            does not receive, such as the offset of a count (``flambeau.task.log_link``). Unlike
            targets they are needed for a prediction.
        extras: Values by name that are not tensors (reference texts), each a list with one entry
            per sample. They stay on the host; ``rows`` and ``first`` select their entries, too.
        lr_scale: Factor on the learning rate of the step (sequence length in truncated BPTT).
        indices: Sample numbers, int64 ``(batch,)``, always on the CPU. Random numbers for a sample
            are computed from its sample number and the epoch, so that they do not depend on batch,
            worker or rank.
        epoch: Epoch of the batch.
    """

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor] = field(default_factory=lambda: {})
    masks: Mapping[str, Tensor] = field(default_factory=lambda: {})
    weight: float | None = None
    lr_scale: float = 1.0
    indices: Tensor | None = None
    epoch: int = 0
    sample_weight: Tensor | None = None
    extras: Mapping[str, list[Any]] = field(default_factory=lambda: {})
    task_inputs: Mapping[str, Tensor] = field(default_factory=lambda: {})

    def __post_init__(self) -> None:
        if not self.extras:
            return
        for name, values in self.extras.items():
            if not isinstance(values, list) or len(values) != len(self):  # pyright: ignore[reportUnnecessaryIsInstance] users err
                kind = type(values).__name__
                size = f" of {len(values)}" if isinstance(values, list) else ""  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InputError(
                    f"extras[{name!r}] is a {kind}{size}, but must be a list with one entry for "
                    f"each of the {len(self)} samples of the batch."
                )

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
        """Return the batch with ``function`` applied to every tensor, except ``indices``."""
        weights = self.sample_weight
        return replace(
            self,
            inputs={name: function(value) for name, value in self.inputs.items()},
            targets={name: function(value) for name, value in self.targets.items()},
            masks={name: function(value) for name, value in self.masks.items()},
            task_inputs={name: function(value) for name, value in self.task_inputs.items()},
            sample_weight=None if weights is None else function(weights),
        )

    def first(self, n: int) -> Batch:
        """Return a batch of the first ``n`` samples; see ``rows``."""
        return self.rows(slice(0, n))

    def rows(self, rows: slice | Tensor) -> Batch:
        """Return a batch of some of the samples, in the given order.

        If the ``weight`` of this batch is its number of samples, or the sum of ``sample_weight``,
        so is that of the returned batch. Otherwise (a number of tokens) the returned batch has the
        weight None, and the loss computes it.

        Args:
            rows: A slice; or positions in the batch, int64 ``(rows,)`` on the CPU; or a bool mask
                ``(batch,)``.

        Raises:
            InputError: The mask does not have one entry per sample.
        """
        if isinstance(rows, Tensor) and rows.dtype == torch.bool:
            if rows.shape != (len(self),):
                raise InputError(
                    f"The mask has the shape {tuple(rows.shape)}, but the batch has {len(self)} "
                    f"samples. Give one bool for each: ({len(self)},)."
                )
            rows = rows.cpu().nonzero().squeeze(1)

        def taken(value: Tensor) -> Tensor:
            return value[rows] if isinstance(rows, slice) else value[rows.to(value.device)]

        # Extras are set afterwards: those of all samples do not fit the batch that ``map`` returns.
        part = replace(self, weight=None, extras={}).map(taken)
        part.extras = {name: _taken(values, rows) for name, values in self.extras.items()}
        part.indices = None if self.indices is None else self.indices[rows]
        if self.weight == self.sample_count():
            part.weight = part.sample_count()
        return part

    def sample_count(self) -> float:
        """Return the sum of ``sample_weight``, or the number of samples without it.

        The sum is read from the device.
        """
        weights = self.sample_weight
        return float(len(self)) if weights is None else float(weights.double().sum())

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


def _taken(values: list[Any], rows: slice | Tensor) -> list[Any]:
    if isinstance(rows, slice):
        return values[rows]
    positions = cast("list[int]", rows.tolist())  # pyright: ignore[reportUnknownMemberType]
    return [values[position] for position in positions]


def _only(tensors: Mapping[str, Tensor], kind: str) -> Tensor:
    if len(tensors) != 1:
        raise InputError(
            f"batch.{kind} needs exactly one {kind}, but the batch has {len(tensors)} "
            f"({', '.join(tensors) or 'none'}). Select one by name: "
            f"batch.{kind}s['{next(iter(tensors), 'name')}']."
        )
    return next(iter(tensors.values()))
