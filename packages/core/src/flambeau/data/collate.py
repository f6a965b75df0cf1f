"""``BatchLayout``: how a foreign sample or batch is read. Declared, never guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError, did_you_mean


@dataclass(frozen=True)
class BatchLayout:
    """Which parts of a foreign batch are inputs and which targets.

    A tuple of two needs no declaration: (input, target). Every other tuple needs ``n_inputs``:
    that many parts from the left are inputs, the others targets. A dict needs the names.

    Attributes:
        n_inputs: For tuples.
        inputs: For dicts: keys of the inputs, in the order of the model's arguments.
        targets: For dicts: keys of the targets; may be empty.

    Raises:
        ArgumentError: Both ways are declared, or names are given as a single string.
    """

    n_inputs: int | None = None
    inputs: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for word in ("inputs", "targets"):
            names = getattr(self, word)
            if isinstance(names, str):
                raise ArgumentError(
                    f"{word}={names!r} is one string; write {word}=({names!r},) for one name."
                )
            if names is not None:
                object.__setattr__(self, word, tuple(names))
        if self.inputs is not None and self.n_inputs is not None:
            raise ArgumentError(
                "n_inputs is for tuples and inputs for dicts; declare the one your data have."
            )
        if self.inputs is None and self.targets is not None:
            raise ArgumentError(f"targets={self.targets!r} needs inputs=(…) beside it.")
        if self.inputs is not None and not self.inputs:
            raise ArgumentError("inputs=() names nothing: a model needs at least one input.")
        if self.n_inputs is not None and self.n_inputs < 1:
            raise ArgumentError(f"n_inputs={self.n_inputs}: a model needs at least one input.")

    def parts(self, sample: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and targets of a sample or of a batch, by name, as they come.

        A tuple's parts are named "input" and "target", or "input_0", "input_1", … where there
        are several.

        Raises:
            InputError: It is not as declared; the message says what was found and what to write.
        """
        if isinstance(sample, Mapping):
            return self._of_dict(cast(Mapping[str, Any], sample))
        if self.inputs is not None:
            raise InputError(
                f"inputs={self.inputs!r} names parts of a dict, but the data give "
                f"{_kind(sample)}. Write n_inputs=… instead."
            )
        if isinstance(sample, tuple | list):
            return self._of_tuple(cast(Sequence[Any], sample))
        if self.n_inputs == 1:
            return {"input": sample}, {}
        raise InputError(
            f"The data give {_kind(sample)} where (input, target) was expected. For inputs "
            "without targets write n_inputs=1; else give tuples or dicts."
        )

    def batch(self, collated: object) -> Batch:
        """A ``Batch`` of tensors, with its weight the number of samples."""
        return as_batch(*self.parts(collated))

    def _of_tuple(self, sample: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        n_inputs = self.n_inputs
        if n_inputs is None:
            if len(sample) != 2:
                raise InputError(
                    f"The data give tuples of {len(sample)}, so what is input and what target "
                    "must be declared: write n_inputs=… (that many from the left are inputs)."
                )
            n_inputs = 1
        if len(sample) < n_inputs:
            raise InputError(f"n_inputs={n_inputs}, but the data give tuples of {len(sample)}.")
        return _named("input", sample[:n_inputs]), _named("target", sample[n_inputs:])

    def _of_dict(self, sample: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        known = ", ".join(repr(name) for name in sample)
        if self.inputs is None:
            raise InputError(
                f"The data give dicts with the keys {known}, so what is input and what target "
                f"must be declared: write inputs=({next(iter(sample), 'image')!r},), "
                f"targets=({list(sample)[-1] if sample else 'label'!r},)."
            )
        targets = self.targets or ()
        for name in (*self.inputs, *targets):
            if name not in sample:
                raise InputError(f"The data have no {name!r}. {did_you_mean(name, sample)}")
        return {name: sample[name] for name in self.inputs}, {
            name: sample[name] for name in targets
        }


def as_batch(inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Batch:
    """A ``Batch`` of the named parts, with its weight the number of samples.

    Raises:
        InputError: A part is no tensor or array, or the parts have different lengths.
    """
    batch = Batch(
        {name: _tensor(name, value) for name, value in inputs.items()},
        {name: _tensor(name, value) for name, value in targets.items()},
    )
    every = (*batch.inputs.items(), *batch.targets.items())
    if len({value.shape[0] for _, value in every}) > 1:
        found = ", ".join(f"{name!r} {value.shape[0]}" for name, value in every)
        raise InputError(f"Parts of a batch have different numbers of samples: {found}.")
    batch.weight = float(len(batch))
    return batch


def _named(kind: str, values: Sequence[Any]) -> dict[str, Any]:
    if len(values) == 1:
        return {kind: values[0]}
    return {f"{kind}_{place}": value for place, value in enumerate(values)}


def _tensor(name: str, value: object) -> Tensor:
    if isinstance(value, np.ndarray):
        array = cast(NDArray[Any], value)
        if array.dtype.kind in "fiub":
            value = torch.as_tensor(array)
    if not isinstance(value, Tensor):
        raise InputError(
            f"{name!r} of a batch is {_kind(value)}, not a tensor. Let the data set return "
            "tensors, arrays or numbers, or give the loader a collate_fn that does."
        )
    if value.ndim == 0:
        raise InputError(f"{name!r} of a batch is a single number, not one row a sample.")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
