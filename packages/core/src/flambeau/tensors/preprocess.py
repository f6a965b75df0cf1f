"""``TensorPreprocessor``: arrays to tensors, standardised with what was measured on train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.errors import InputError

_CHUNK_ROWS = 65_536


class TensorPreprocessor:
    """Inputs as the model takes them: checked, cast, and standardised where that was chosen.

    Standardising makes the train rows have mean 0 and standard deviation 1: by feature where a
    sample is a vector, over the whole input otherwise (which axis counts as a feature differs
    from net to net). A constant feature becomes 0. It runs on the device, after augmentation.

    Args:
        inputs: ``{name: {"shape": [sizes of one sample], "dtype": "float32"}}`` in the order of
            the model's arguments.
        standardised: Names of the inputs that are standardised, in the order of ``mean``.
        mean: Their means, one after another; float64 ``(k,)``.
        std: Their standard deviations (of the population), float64 ``(k,)``.
        dtype: What floating-point inputs are cast to at the end, where the model computes in
            another one ("float32" for float64 tables); None leaves them.

    Raises:
        InputError: An argument is not as described (a damaged export).
    """

    def __init__(
        self,
        inputs: Mapping[str, Mapping[str, Any]],
        standardised: Sequence[str] = (),
        mean: Tensor | None = None,
        std: Tensor | None = None,
        dtype: str | None = None,
    ) -> None:
        self.inputs = {name: _checked_spec(name, value) for name, value in inputs.items()}
        self.standardised = tuple(standardised)
        self.mean = mean
        self.std = std
        self.dtype = dtype
        self._dtype = None if dtype is None else dtype_of(dtype)
        self._check_figures()
        self._ready: dict[tuple[str, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    @classmethod
    def fit(
        cls, inputs: Mapping[str, Tensor], *, standardise: bool, dtype: str | None = None
    ) -> TensorPreprocessor:
        """Measured on ``inputs`` ``(n, …)``, which must be the train rows."""
        described = {
            name: {"shape": list(value.shape[1:]), "dtype": dtype_name(value.dtype)}
            for name, value in inputs.items()
        }
        names = [name for name, value in inputs.items() if value.is_floating_point()]
        if not standardise or not names:
            return cls(described, dtype=dtype)
        figures = [mean_and_std(inputs[name], by_feature=inputs[name].ndim == 2) for name in names]
        means, stds = zip(*figures, strict=True)
        return cls(described, names, torch.cat(means), torch.cat(stds), dtype)

    def _check_figures(self) -> None:
        if not self.standardised:
            return
        if unknown := [name for name in self.standardised if name not in self.inputs]:
            raise InputError(f"{unknown[0]!r} is standardised, but there is no such input.")
        shapes = [self.inputs[name]["shape"] for name in self.standardised]
        width = sum(shape[0] if len(shape) == 1 else 1 for shape in shapes)
        for what, figures in (("mean", self.mean), ("std", self.std)):
            if figures is None or figures.shape != (width,):
                found = "none" if figures is None else f"shape {tuple(figures.shape)}"
                raise InputError(
                    f"A preprocessor that standardises {', '.join(self.standardised)} needs a "
                    f"{what} of shape ({width},), and got {found}."
                )

    @property
    def builder(self) -> str:
        """Its name in artefacts."""
        return "tensor_preprocessor"

    def arguments(self) -> Mapping[str, Any]:
        """JSON values that rebuild it."""
        return {
            "inputs": self.inputs,
            "standardised": list(self.standardised),
            "dtype": self.dtype,
        }

    def tensors(self) -> Mapping[str, Tensor]:
        """Means and standard deviations, where there are any."""
        if self.mean is None or self.std is None:
            return {}
        return {"mean": self.mean, "std": self.std}

    def is_single(self, item: object) -> bool:
        """Whether ``item`` is one sample rather than many: it has the axes of a sample."""
        if isinstance(item, str | bytes):
            return True  # a file's name is not many letters; encode says that it is no number
        if isinstance(item, Mapping):
            parts = cast(Mapping[str, Any], item)
            name = next((name for name in self.inputs if name in parts), None)
            return name is not None and np.ndim(parts[name]) == len(self.inputs[name]["shape"])
        if isinstance(item, tuple) and len(self.inputs) > 1:
            first = next(iter(self.inputs.values()))
            return np.ndim(cast(Any, item[0])) == len(first["shape"])
        if len(self.inputs) > 1 or not isinstance(item, Tensor | np.ndarray | int | float):
            return False
        return np.ndim(cast(Any, item)) == len(next(iter(self.inputs.values()))["shape"])

    def encode(self, items: Sequence[Any]) -> Batch:
        """Samples to a CPU batch without targets.

        Args:
            items: Arrays, tensors or lists with the shape of one sample, or all of them stacked;
                where there are several inputs, each item is a dict by name or a tuple in order.

        Raises:
            InputError: No items, another shape, no numbers, NaN or infinity; it names the item.
        """
        if not len(items):
            raise InputError("There is nothing to predict: no items were given.")
        rows = [self._parts(place, items[place]) for place in range(len(items))]
        inputs = {
            name: torch.stack(
                [_cast(name, place, row[name], spec) for place, row in enumerate(rows)]
            )
            for name, spec in self.inputs.items()
        }
        for name, value in inputs.items():
            if wrong := non_finite_rows(value):
                raise InputError(
                    f"Item {wrong[0]} holds NaN or infinity in {name!r}: "
                    f"{first_non_finite(value[wrong[0]])}. Fill it in as in the train data."
                )
        return Batch(inputs, weight=float(len(items)), indices=torch.arange(len(items)))

    def on_device(self, batch: Batch) -> Batch:
        """The batch with the chosen inputs standardised in their own dtype, then cast."""
        if not self.standardised and self._dtype is None:
            return batch
        inputs = dict(batch.inputs)
        for name in self.standardised:
            mean, scale = self._figures(name, inputs[name])
            inputs[name] = (inputs[name] - mean) * scale
        if self._dtype is not None:
            for name, value in inputs.items():
                if value.is_floating_point():
                    inputs[name] = value.to(self._dtype)
        return replace(batch, inputs=inputs)

    def _figures(self, name: str, value: Tensor) -> tuple[Tensor, Tensor]:
        key = name, value.device, value.dtype
        if key not in self._ready:
            if self.mean is None or self.std is None:
                raise InputError("A preprocessor that standardises needs both mean and std.")
            start = 0
            for other in self.standardised:
                shape = self.inputs[other]["shape"]
                width = shape[0] if len(shape) == 1 else 1
                mean, std = (part[start : start + width] for part in (self.mean, self.std))
                start += width
                if other == name:
                    scale = 1 / std
                    # float64 until here: mps has none, and the reciprocal keeps its precision.
                    self._ready[key] = (
                        mean.to(value.dtype).to(value.device),
                        scale.to(value.dtype).to(value.device),
                    )
        return self._ready[key]

    def _parts(self, place: int, item: Any) -> Mapping[str, Any]:
        names = tuple(self.inputs)
        if isinstance(item, Mapping):
            parts = cast(Mapping[str, Any], item)
            if missing := [name for name in names if name not in parts]:
                raise InputError(
                    f"Item {place} has no {missing[0]!r}; it needs {', '.join(names)}."
                )
            return parts
        if len(names) == 1:
            return {names[0]: item}
        row = cast(Sequence[Any], item if isinstance(item, tuple | list) else ())
        if len(row) != len(names):
            raise InputError(
                f"Item {place} must give {len(names)} inputs ({', '.join(names)}): a dict by name "
                f"or a tuple in this order, not {_kind(cast(object, item))}."
            )
        return dict(zip(names, row, strict=True))


def mean_and_std(value: Tensor, *, by_feature: bool) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation, float64 ``(features,)`` or ``(1,)``; std 0 is 1.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979), chunk by chunk, so that no float64 copy of the data is made.
    """
    flat = value if by_feature else value.reshape(len(value), -1)
    count, mean, squares = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1).double()
    for chunk in torch.split(flat, _CHUNK_ROWS):
        block = chunk.double()
        block = block if by_feature else block.reshape(-1, 1)
        n, block_mean = len(block), block.mean(0)
        difference = block_mean - mean
        squares = squares + ((block - block_mean) ** 2).sum(0)
        squares = squares + difference**2 * (count * n / (count + n))
        mean = mean + difference * (n / (count + n))
        count += n
    std = (squares / count).sqrt()
    # What is left of a constant feature is rounding; dividing by it would blow it up.
    constant = std <= 1e-12 * mean.abs()
    return mean, torch.where(constant, torch.ones_like(std), std)


def non_finite_rows(value: Tensor, limit: int = 5) -> list[int]:
    """The first rows that hold NaN or infinity."""
    if not (value.is_floating_point() or value.is_complex()):
        return []
    rows: list[int] = []
    for start in range(0, len(value), _CHUNK_ROWS):
        finite = torch.isfinite(value[start : start + _CHUNK_ROWS])
        if not finite.all():
            bad = (~finite.reshape(len(finite), -1)).any(1).nonzero().flatten() + start
            rows += [int(row) for row in bad[: limit - len(rows)]]
            if len(rows) >= limit:
                break
    return rows


def first_non_finite(row: Tensor) -> str:
    """The first NaN or infinity in one sample, and where: ``"nan in column 3"``."""
    if row.ndim == 0:
        return str(row.item())
    place = [int(index) for index in (~torch.isfinite(row)).nonzero()[0]]
    where = f"column {place[0]}" if row.ndim == 1 else f"place {tuple(place)}"
    return f"{row[tuple(place)].item()} in {where}"


def dtype_name(dtype: torch.dtype) -> str:
    """``"float32"`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: object) -> torch.dtype:
    """``torch.float32`` for ``"float32"``.

    Raises:
        InputError: torch has no such dtype.
    """
    found: object = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(found, torch.dtype):
        raise InputError(f"torch has no dtype {name!r}; one is 'float32'.")
    return found


def _checked_spec(name: str, spec: object) -> dict[str, Any]:
    values = dict(cast(Mapping[str, Any], spec)) if isinstance(spec, Mapping) else {}
    shape: object = values.get("shape")
    sizes = cast("Sequence[object]", shape) if isinstance(shape, list | tuple) else [-1]
    if values.keys() != {"shape", "dtype"} or any(type(n) is not int or n < 0 for n in sizes):
        raise InputError(
            f"The input {name!r} is described by {spec!r:.80}, not by the shape of a sample and a "
            'dtype: {"shape": [3], "dtype": "float32"}.'
        )
    dtype_of(values["dtype"])
    return values


def _cast(name: str, place: int, value: Any, spec: Mapping[str, Any]) -> Tensor:
    dtype = dtype_of(spec["dtype"])
    try:
        tensor = torch.as_tensor(value, dtype=dtype).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"Item {place} cannot be read as numbers for {name!r}: it is {value!r:.60} ({error})"
        ) from error
    if list(tensor.shape) != list(spec["shape"]):
        raise InputError(
            f"Item {place} has shape {tuple(tensor.shape)} for {name!r}, but the model was trained "
            f"on {tuple(spec['shape'])}."
        )
    return tensor


def _kind(item: object) -> str:
    return f"a {type(item).__name__}"
