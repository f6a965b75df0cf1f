"""``Preprocessor``: raw items to model inputs, fitted on train only, then frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from flambeau.data.batch import Batch


@runtime_checkable
class Preprocessor(Protocol):
    """One object on the training, validation and prediction path, so that they cannot differ.

    It is plain data: ``arguments()`` are JSON values and ``tensors()`` what is too large for
    JSON; the constructor registered as ``builder`` takes both back
    (``builder(**arguments, **tensors)``).

    A class may derive from it: ``on_device`` then leaves the batch as it is, and there are no
    arguments and no tensors, until it says otherwise.
    """

    @property
    def builder(self) -> str:
        """The name under which the domain registers the constructor."""
        ...

    def encode(self, items: Sequence[Any]) -> Batch:
        """Raw items (files, arrays, rows) to a CPU batch without targets; the errors name items."""
        ...

    def on_device(self, batch: Batch) -> Batch:
        """The deterministic last part, on the device (normalisation); after augmentation."""
        return batch

    def arguments(self) -> Mapping[str, Any]:
        """JSON values that rebuild it."""
        return {}

    def tensors(self) -> Mapping[str, Tensor]:
        """Tensors that rebuild it."""
        return {}
