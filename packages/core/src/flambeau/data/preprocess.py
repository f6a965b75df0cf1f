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

    A class may derive from this protocol. By default ``on_device`` returns the batch unchanged,
    ``collect`` returns a list, or a frame for a frame, and ``arguments()`` and ``tensors()`` return
    empty mappings.
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

    def collect(self, items: Any, outputs: Sequence[Any]) -> Any:
        """Return what ``predict`` returns for several inputs, by default a list of the predictions.

        A frame (pandas) gives a frame with the same index and a column per field of a prediction.

        Args:
            items: The inputs as they were passed to ``predict``, except an iterator.
            outputs: One decoded prediction per input, in their order.
        """
        from flambeau.data.prediction_columns import collect  # not needed by every program

        return collect(items, outputs)

    def arguments(self) -> Mapping[str, Any]:
        """Return the constructor arguments that are JSON values."""
        return {}

    def tensors(self) -> Mapping[str, Tensor]:
        """Return the constructor arguments that are tensors."""
        return {}


@runtime_checkable
class HasVocabulary(Protocol):
    """A preprocessor that maps inputs to ids; a model's weights fit only one meaning of the ids."""

    def vocabulary_digest(self) -> str:
        """Return a digest of all vocabularies; weights fit only data with the same digest."""
        ...


class InputCheck(Protocol):
    """How the rows of a table differ from the training rows, added up over pieces of it."""

    def add(self, rows: Sequence[Any]) -> None:
        """Count the cells of these rows."""
        ...

    def summary(self) -> str:
        """Return a line about all rows that were added."""
        ...

    def warn(self) -> None:
        """Warn of columns that differ so much that predictions may be wrong."""
        ...


@runtime_checkable
class PredictsTables(Protocol):
    """A preprocessor that encodes a table at once and collects its predictions as columns."""

    def table_rows(self, items: Any) -> Sequence[Any] | None:
        """Return the rows of a table, which ``encode`` takes at once; None for other inputs."""
        ...

    def collect_columns(self, items: Any, columns: Mapping[str, Any]) -> Any:
        """Return what ``predict`` returns for a table, from columns of its predictions by name."""
        ...

    def warn_of_rows(self, rows: Sequence[Any]) -> None:
        """Warn if many of the rows of a table differ from the training rows."""
        ...

    def input_check(self) -> InputCheck:
        """Return an object that counts how the rows of tables differ from the training rows."""
        ...
