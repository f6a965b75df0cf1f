"""``JointPreprocessor``: encodes the same raw inputs for several models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import LoaderOptions
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import InputError

_OPTIONAL = (
    "collect_columns",
    "expand",
    "input_check",
    "is_single",
    "rows_of_frame",
    "table_rows",
    "warn_of_rows",
)
"""Methods that a preprocessor need not have, and that do not depend on what it was fitted on."""


class JointPreprocessor(Preprocessor):
    """The preprocessors of several models that predict as one.

    A batch has the inputs of each of them, under names with its number: "0/age", "1/age".
    ``batch_of`` returns the batch of one.

    Args:
        members: The preprocessors, of one class. The first one decides what an input is, and how
            predictions are collected.
    """

    def __init__(self, members: Sequence[Preprocessor]) -> None:
        self.members = tuple(members)
        if not self.members:
            raise InputError("A JointPreprocessor needs at least one preprocessor.")
        for name in _OPTIONAL:
            if hasattr(self.members[0], name):
                setattr(self, name, getattr(self.members[0], name))

    @property
    def builder(self) -> str:
        """Name of the constructor in exports."""
        return "joint"

    def encode(self, items: Sequence[Any]) -> Batch:
        return joined([member.encode(items) for member in self.members])

    def on_device(self, batch: Batch) -> Batch:
        members = enumerate(self.members)
        return joined([member.on_device(batch_of(batch, number)) for number, member in members])

    def collect(self, items: Any, outputs: Sequence[Any]) -> Any:
        return self.members[0].collect(items, outputs)

    def arguments(self) -> Mapping[str, Any]:
        members = [
            {"builder": member.builder, "arguments": dict(member.arguments())}
            for member in self.members
        ]
        return {"members": members}

    def tensors(self) -> Mapping[str, Tensor]:
        return {
            f"{number}/{name}": tensor
            for number, member in enumerate(self.members)
            for name, tensor in member.tensors().items()
        }


def joined(batches: Sequence[Batch]) -> Batch:
    """Return batches of the same samples as one, whose inputs have names with a number.

    Everything but inputs and masks is that of the first batch.
    """
    return replace(
        batches[0],
        inputs={f"{n}/{name}": v for n, b in enumerate(batches) for name, v in b.inputs.items()},
        masks={f"{n}/{name}": v for n, b in enumerate(batches) for name, v in b.masks.items()},
    )


def batch_of(batch: Batch, number: int) -> Batch:
    """Return the batch with only the inputs of the preprocessor with this number."""
    prefix = f"{number}/"

    def own(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in columns.items() if k.startswith(prefix)}

    return replace(batch, inputs=own(batch.inputs), masks=own(batch.masks))


def encoded_batches(
    data: Data,
    part: str,
    preprocessor: Preprocessor,
    values: Mapping[str, Any],
    options: LoaderOptions,
) -> Iterator[Batch]:
    """Yield the batches of a part of the data as a preprocessor encodes them.

    Args:
        data: The data.
        part: "train", "valid", "test" or "calibration".
        preprocessor: That of the model; of a ``JointPreprocessor``, each member encodes the part.
        values: Values of the plan; may be empty.
        options: Options of the loader, which does not shuffle.
    """
    if not isinstance(preprocessor, JointPreprocessor):
        yield from data.dataset(part, preprocessor, values).loader(options).batches(0)
        return
    members = preprocessor.members
    loaders = [data.dataset(part, each, values).loader(options) for each in members]
    for batches in zip(*(loader.batches(0) for loader in loaders), strict=True):
        yield joined(batches)
