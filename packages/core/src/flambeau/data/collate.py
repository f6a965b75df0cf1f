"""``BatchLayout``: which fields of a user's sample or batch are inputs and targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.checked_arguments import checked_count
from flambeau.data.batch import Batch
from flambeau.data.checked_weights import checked_weights
from flambeau.data.readable_arrays import refuse_masked
from flambeau.errors import ArgumentError, InputError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class BatchLayout:
    """The input fields and the target fields of a user's sample or batch.

    A tuple of two fields is (input, target) by default, and each of them may be a tuple or a dict
    of fields: ``((a, b), y)``, ``({"image": a, "mask": b}, y)``. Any other tuple needs
    ``n_inputs``; a dict needs the keys; a ``Batch`` names its fields itself.

    Attributes:
        n_inputs: For tuples: the first ``n_inputs`` fields are inputs, the others targets.
        inputs: For dicts: keys of the inputs, in the order of the model's arguments.
        targets: For dicts: keys of the targets; may be empty.

    Raises:
        ArgumentError: Both ``n_inputs`` and ``inputs`` are given, or the keys are a single string
            or a set.
        InputError: ``n_inputs`` is below 1.
    """

    n_inputs: int | None = None
    inputs: tuple[str, ...] | None = None
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for argument in ("inputs", "targets"):
            names = getattr(self, argument)
            if isinstance(names, str):
                raise ArgumentError(
                    f"{argument}={names!r} is a single string. For one name write "
                    f"{argument}=({names!r},)."
                )
            if isinstance(names, AbstractSet):
                raise ArgumentError(
                    f"{argument} is a {type(cast(object, names)).__name__}, which has no order, so "
                    f"it is unknown which of the {argument} is the first. Give a tuple of names."
                )
            if names is not None:
                object.__setattr__(self, argument, tuple(names))
        if self.inputs is not None and self.n_inputs is not None:
            raise ArgumentError(
                "n_inputs is for tuples and inputs for dicts. Give only the one that fits your "
                "data."
            )
        if self.inputs is None and self.targets is not None:
            raise ArgumentError(f"targets={self.targets!r} also needs inputs=(…).")
        if self.inputs is not None and not self.inputs:
            raise ArgumentError("inputs=() is empty, but a model needs at least one input.")
        if self.n_inputs is not None:
            object.__setattr__(self, "n_inputs", checked_count(self.n_inputs, "n_inputs"))

    def inputs_and_targets(self, sample: object) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the inputs and targets of a sample or batch by name, not converted.

        The fields of a tuple are named "input" and "target", or "input_0", "input_1", … if there
        are several.

        Raises:
            InputError: The sample does not match the layout; the message says which argument to
                give.
        """
        if isinstance(sample, Batch):
            return dict(sample.inputs), dict(sample.targets)
        if isinstance(sample, Mapping):
            return self._of_dict(cast(Mapping[str, Any], sample))
        if self.inputs is not None and not _is_dict_and_rest(sample):
            raise InputError(
                f"inputs={self.inputs!r} is for samples that are dicts, but the data return "
                f"{_kind(sample)}. Use n_inputs=… instead."
            )
        if isinstance(sample, tuple | list):
            return self._of_tuple(cast(Sequence[Any], sample))
        if self.n_inputs == 1:
            return {"input": sample}, {}
        raise InputError(
            f"The data return {_kind(sample)}, but (input, target) was expected. For inputs "
            "without targets write n_inputs=1; otherwise return tuples or dicts."
        )

    def batch(self, collated: object) -> Batch:
        """Return a ``Batch`` of tensors whose weight is the number of samples.

        If ``collated`` is already a ``Batch``, return a checked copy, which keeps its weights,
        masks and extras.
        """
        if not isinstance(collated, Batch):
            return as_batch(*self.inputs_and_targets(collated))
        if self != BatchLayout():
            raise InputError(
                "The loader yields Batch objects, which name their inputs and targets themselves. "
                "Omit n_inputs, inputs and targets."
            )
        return _checked(collated)

    def _of_tuple(self, sample: Sequence[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        n_inputs = self.n_inputs
        if n_inputs is None:
            if len(sample) != 2:
                raise InputError(
                    f"The data return tuples of {len(sample)}, so it is unknown which fields are "
                    "inputs and which are targets. Write n_inputs=…: the first n_inputs fields "
                    "are inputs. If the last field has the weights of the samples, let a loader "
                    'yield Batch({"input": x}, {"target": y}, sample_weight=w).'
                )
            n_inputs = 1
        if len(sample) < n_inputs:
            raise InputError(
                f"n_inputs is {n_inputs}, but the data return tuples of {len(sample)}. Reduce "
                "n_inputs, or return all inputs."
            )
        inputs = _named("input", sample[:n_inputs])
        if self.inputs is not None:
            inputs = {name: _field(name, inputs) for name in self.inputs}
        targets = _named("target", sample[n_inputs:])
        if self.targets is not None:
            targets = {name: _field(name, targets) for name in self.targets}
        if shared := inputs.keys() & targets.keys():
            raise InputError(
                f"The data return {sorted(shared)[0]!r} both as an input and as a target. Rename "
                "one of them."
            )
        return inputs, targets

    def _of_dict(self, sample: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        known = ", ".join(repr(name) for name in sample)
        if self.inputs is None:
            inputs, targets = list(sample)[:-1] or ["image"], list(sample)[-1:] or ["label"]
            raise InputError(
                f"The data return dicts with the keys {known}, so it is unknown which of them are "
                f"inputs and which are targets. Write {inputs=}, {targets=}."
            )
        targets = self.targets or ()
        return {name: _field(name, sample) for name in self.inputs}, {
            name: _field(name, sample) for name in targets
        }


def as_batch(inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Batch:
    """Return a ``Batch`` of the named fields whose weight is the number of samples.

    Raises:
        InputError: A field is not a tensor or array, or the fields have different lengths.
    """
    batch = Batch(
        {name: _tensor(name, value) for name, value in inputs.items()},
        {name: widened_target(name, _tensor(name, value)) for name, value in targets.items()},
    )
    fields = (*batch.inputs.items(), *batch.targets.items())
    if len({value.shape[0] for _, value in fields}) > 1:
        found = ", ".join(f"{name!r} has {value.shape[0]}" for name, value in fields)
        raise InputError(
            f"The fields of a batch have different numbers of samples: {found}. Give one row per "
            "sample in each field."
        )
    batch.weight = float(len(batch))
    return batch


def _checked(batch: Batch) -> Batch:
    """Return a checked copy of a user's ``Batch``; a missing weight is added if it can be computed.

    Raises:
        InputError: A field is not a tensor with one row per sample, or a weight is invalid.
    """
    if not batch.inputs:
        raise InputError("A Batch of the loader has no inputs. Give at least one tensor by name.")
    found = as_batch(batch.inputs, batch.targets)
    n = len(found)
    masks = {name: _tensor(name, value) for name, value in batch.masks.items()}
    weights = batch.sample_weight
    if weights is not None:
        weights = checked_weights(_tensor("sample_weight", weights), allow_zeros=True)
    numbers = None if batch.indices is None else _tensor("indices", batch.indices)
    more = {name: _tensor(name, value) for name, value in batch.task_inputs.items()}
    rows = {**masks, **more, "sample_weight": weights, "indices": numbers}
    for name, value in rows.items():
        if value is not None and len(value) != n:
            raise InputError(
                f"{name!r} of a Batch has {len(value)} rows, but the batch has {n} samples. Give "
                "one row per sample."
            )
    for name, value in (("weight", batch.weight), ("lr_scale", batch.lr_scale)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InputError(
                f"{name} of a Batch is {value!r:.40}, but must be a finite number of at least 0."
            )
    # Extras are checked by Batch, with the number of samples.
    checked = replace(
        batch,
        inputs=found.inputs,
        targets=found.targets,
        masks=masks,
        task_inputs=more,
        sample_weight=weights,
        indices=None if numbers is None else numbers.to("cpu", torch.int64),
        extras=dict(batch.extras),
    )
    if checked.weight is None and (weights is None or weights.device.type == "cpu"):
        checked.weight = checked.sample_count()
    return checked


def _is_dict_and_rest(sample: object) -> bool:
    """Return whether a sample is a tuple whose first field is a dict of inputs."""
    fields = cast("Sequence[object]", sample) if isinstance(sample, tuple | list) else ()
    return bool(fields) and isinstance(fields[0], Mapping)


def _field(name: str, fields: Mapping[str, Any]) -> Any:
    if name not in fields:
        raise InputError(f"The data return no field {name!r}. {did_you_mean(name, fields)}")
    return fields[name]


def widened_target(name: str, value: Tensor) -> Tensor:
    """Return uint16, uint32 and uint64, which few torch functions support, as int64.

    Raises:
        InputError: An integer does not fit in int64; the message gives its row.
    """
    if value.dtype not in (torch.uint16, torch.uint32, torch.uint64):
        return value
    found = value.long()
    if value.dtype == torch.uint64 and bool((found < 0).any()):
        row = int((found < 0).nonzero()[0, 0])
        raise InputError(
            f"{name!r} has an integer of at least 2**63 in row {row}, which int64 cannot hold. "
            "Convert amounts to floats (targets.astype(float)), or number the classes from 0 "
            "(np.unique(targets, return_inverse=True))."
        )
    return found


def _named(kind: str, values: Sequence[Any]) -> dict[str, Any]:
    """Return fields by name; a single value may be a dict, or a tuple of tensors or arrays."""
    if len(values) == 1:
        value = values[0]
        if isinstance(value, Mapping):
            return dict(cast("Mapping[str, Any]", value))
        if not _is_tuple_of_fields(value):
            return {kind: value}
        values = cast("Sequence[Any]", value)
    return {f"{kind}_{index}": value for index, value in enumerate(values)}


def _is_tuple_of_fields(value: object) -> bool:
    """Return whether a value is a tuple or list of fields, not a single field (list of numbers)."""
    if not isinstance(value, tuple | list) or not value:
        return False
    return all(isinstance(each, Tensor | np.ndarray) for each in cast("Sequence[object]", value))


def _tensor(name: str, value: object) -> Tensor:
    if isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        refuse_masked(f"{name!r} of a batch", array)
        if array.dtype.kind in "fiub":
            value = torch.as_tensor(array)
    if not isinstance(value, Tensor):
        raise InputError(
            f"{name!r} of a batch is {_kind(value)}, not a tensor. Return tensors, arrays or "
            "numbers from the data set, or use a collate_fn that returns tensors."
        )
    if value.ndim == 0:
        raise InputError(
            f"{name!r} of a batch is a scalar tensor. Return a tensor with one row per sample."
        )
    return value


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"one tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
