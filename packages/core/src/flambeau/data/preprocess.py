"""``Preprocessor``: converts raw inputs to model inputs; fitted once, on train samples only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from flambeau.data.batch import Batch


@runtime_checkable
class Preprocessor(Protocol):
    """The preprocessing that is used by training, validation and prediction.

    It is saved as ``arguments()`` (JSON values) and ``tensors()`` and rebuilt with the constructor
    registered as ``builder``: ``builder(**arguments, **tensors)``.

    A class may derive from it. By default ``on_device`` returns the batch unchanged, and
    ``arguments()`` and ``tensors()`` are empty.
    """

    @property
    def builder(self) -> str:
        """Name under which the domain registers the constructor."""
        ...

    def encode(self, items: Sequence[Any]) -> Batch:
        """Return a CPU batch without targets from raw inputs (files, arrays, table rows).

        Error messages give the number of the invalid input.
        """
        ...

    def on_device(self, batch: Batch) -> Batch:
        """Apply the deterministic last stage (normalisation) on the device, after augmentation."""
        return batch

    def arguments(self) -> Mapping[str, Any]:
        """Return the constructor arguments that are JSON values."""
        return {}

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the constructor arguments that are tensors."""
        return {}
