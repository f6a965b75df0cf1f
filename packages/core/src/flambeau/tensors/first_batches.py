"""Compare the first samples of each part with those of train, before the first step."""

from __future__ import annotations

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.tensors.preprocess import dtype_name


def check_like_train(part: str, first: Batch, train: Batch) -> None:
    """Check that a part has the inputs and targets of train, in the same form.

    A part for the final evaluation may lack targets: its inputs can be predicted.

    Args:
        part: Name of the part.
        first: Its first batch.
        train: The first batch of train.

    Raises:
        InputError: Names, dimensions or kinds of numbers differ.
    """
    for kind, found, wanted in (
        ("inputs", first.inputs, train.inputs),
        ("targets", first.targets, train.targets),
    ):
        if kind == "targets" and part == "test" and not found:
            continue
        if list(found) != list(wanted):
            raise InputError(
                f"The {part} {kind} are {_names(list(found))}, but those of train are "
                f"{_names(list(wanted))}. Return the same fields, in the same order, in each part."
            )
        for name, value in found.items():
            other = wanted[name]
            same_kind = (value.is_floating_point(), value.is_complex()) == (
                other.is_floating_point(),
                other.is_complex(),
            )
            if value.ndim != other.ndim or not same_kind:
                raise InputError(
                    f"The {part} {kind[:-1]} {name!r} has {value.ndim - 1} dimensions per sample "
                    f"and dtype {dtype_name(value.dtype)}, but that of train has {other.ndim - 1} "
                    f"and {dtype_name(other.dtype)}. Prepare every part the same way."
                )


def _names(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
