"""``TensorPreprocessor``: converts arrays to tensors and standardises them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.data.readable_arrays import refuse_masked, refuse_unreadable
from flambeau.errors import InputError
from flambeau.tensors.columns import as_columns, as_tensors, native_array
from flambeau.wording import name_some

_CHUNK_ROWS = 65_536
_SHOWN_FIELDS = 5


class TensorPreprocessor(Preprocessor):
    """The preprocessor of tensors: checks, casts and optionally standardises inputs.

    Standardisation gives the train samples mean 0 and standard deviation 1: per feature where a
    sample is a vector, otherwise over the whole input (which dimension holds the features depends
    on the model). A constant feature becomes 0. It runs on the device, after augmentation.

    Args:
        inputs: ``{name: {"shape": [sizes of one sample], "dtype": "float32"}}`` in the order of
            the model's arguments.
        standardised: Names of the inputs to standardise, in the order of ``mean``.
        mean: Means of these inputs, concatenated; float64 ``(k,)``.
        std: Population standard deviations of these inputs, concatenated; float64 ``(k,)``.
        dtype: Dtype to which floating-point inputs are cast at the end ("float32"); None keeps
            their dtype.
        task_inputs: Shape and dtype of the ``Batch.task_inputs``, as for ``inputs``; they are
            passed to the task unchanged.

    Raises:
        InputError: An argument is invalid (a damaged export).
    """

    def __init__(
        self,
        inputs: Mapping[str, Mapping[str, Any]],
        standardised: Sequence[str] = (),
        mean: Tensor | None = None,
        std: Tensor | None = None,
        dtype: str | None = None,
        task_inputs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.task_inputs = {
            name: _checked_spec(name, value) for name, value in (task_inputs or {}).items()
        }
        self.inputs = {name: _checked_spec(name, value) for name, value in inputs.items()}
        self.standardised = tuple(standardised)
        self.mean = mean
        self.std = std
        self.dtype = dtype
        self._dtype = None if dtype is None else dtype_of(dtype)
        self._check_statistics()
        self._statistics: dict[tuple[str, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    @classmethod
    def fit(
        cls,
        inputs: Mapping[str, Tensor],
        *,
        standardise: bool,
        dtype: str | None = None,
        task_inputs: Mapping[str, Tensor] | None = None,
    ) -> TensorPreprocessor:
        """Return a preprocessor fitted on ``inputs`` ``(n, …)``, which must be train samples."""
        described, more = (
            {
                name: {"shape": list(value.shape[1:]), "dtype": dtype_name(value.dtype)}
                for name, value in columns.items()
            }
            for columns in (inputs, task_inputs or {})
        )
        names = [name for name, value in inputs.items() if value.is_floating_point()]
        if not standardise or not names:
            return cls(described, dtype=dtype, task_inputs=more)
        statistics = [
            mean_and_std(inputs[name], by_feature=inputs[name].ndim == 2) for name in names
        ]
        means, stds = zip(*statistics, strict=True)
        return cls(described, names, torch.cat(means), torch.cat(stds), dtype, more)

    def _check_statistics(self) -> None:
        if not self.standardised:
            return
        if unknown := [name for name in self.standardised if name not in self.inputs]:
            raise InputError(
                f"standardised contains {unknown[0]!r}, but the inputs are "
                f"{', '.join(self.inputs)}. Create the preprocessor with an existing input."
            )
        shapes = [self.inputs[name]["shape"] for name in self.standardised]
        width = sum(shape[0] if len(shape) == 1 else 1 for shape in shapes)
        for what, value in (("mean", self.mean), ("std", self.std)):
            if value is None or value.shape != (width,):
                found = "None" if value is None else f"of shape {tuple(value.shape)}"
                raise InputError(
                    f"{what} is {found}, but standardising {', '.join(self.standardised)} needs "
                    f"shape ({width},). Fit the preprocessor again."
                )

    @property
    def builder(self) -> str:
        """Name of the constructor in exports."""
        return "tensor_preprocessor"

    def arguments(self) -> Mapping[str, Any]:
        """Return the constructor arguments that are JSON values."""
        return {
            "inputs": self.inputs,
            "standardised": list(self.standardised),
            "dtype": self.dtype,
            **({"task_inputs": self.task_inputs} if self.task_inputs else {}),
        }

    def tensors(self) -> Mapping[str, Tensor]:
        """Return means and standard deviations; empty without standardisation."""
        if self.mean is None or self.std is None:
            return {}
        return {"mean": self.mean, "std": self.std}

    def is_single(self, item: object) -> bool:
        """Return whether ``item`` is one sample: it has as many dimensions as a sample."""
        if isinstance(item, Tensor):
            refuse_unreadable("to predict", item)
        if isinstance(item, str | bytes):
            return True  # not a sequence of characters; encode raises an error for it
        if isinstance(item, Mapping):
            parts = cast(Mapping[str, Any], item)
            name = next((name for name in self.inputs if name in parts), None)
            return name is not None and np.ndim(parts[name]) == len(self.inputs[name]["shape"])
        if isinstance(item, tuple) and len(self.inputs) > 1:
            first = next(iter(self.inputs.values()))
            return np.ndim(cast(Any, item[0])) == len(first["shape"])
        if len(self.inputs) > 1 or not isinstance(
            item, Tensor | np.ndarray | np.generic | int | float
        ):
            return False
        return np.ndim(cast(Any, item)) == len(next(iter(self.inputs.values()))["shape"])

    def expand(self, item: object) -> Sequence[Any] | None:
        """Return the samples of a buffer or ``np.matrix``, whose rows stay two-dimensional."""
        if not isinstance(item, np.matrix | memoryview) or len(self.inputs) > 1:
            return None
        array = np.asarray(cast(Any, item))
        is_one = array.ndim == len(next(iter(self.inputs.values()))["shape"])
        return [array] if is_one else list(array)

    def rows_of_frame(self, frame: Any) -> Sequence[Any]:
        """Return one sample per row of a frame or series (pandas).

        If the only input is a vector, the columns are its numbers, in the order of the train data.
        Otherwise each column is an input, by name.

        Raises:
            InputError: The number of columns is not the size of the vector, or a column is not
                numeric.
        """
        from flambeau.data.prediction_columns import rows_of

        [(name, spec), *others] = self.inputs.items()
        columns = [str(each) for each in getattr(frame, "columns", ())]
        if others or self.task_inputs or len(spec["shape"]) != 1 or not columns or name in columns:
            return rows_of(frame)
        [width] = spec["shape"]
        if len(columns) == 1 < width:
            return rows_of(frame)  # a column of arrays
        if len(columns) != width:
            raise InputError(
                f"The frame has {len(columns)} columns ({name_some(columns)}), but the model was "
                f"trained on {width} numbers per sample. Select the columns in the order of the "
                "train data: frame[columns]."
            )
        numbers = [frame.iloc[:, position] for position in range(width)]
        named = dict(zip(columns, numbers, strict=True))
        if len(named) < width:
            double = next(each for each in columns if columns.count(each) > 1)
            raise InputError(f"The frame has several columns {double!r}. Rename them.")
        if not len(frame):
            return []
        arrays = as_columns(named, name)
        as_tensors(arrays)  # raises an error that names a column that is not numeric
        return list(np.column_stack([np.asarray(column) for column in arrays.values()]))

    def encode(self, items: Sequence[Any]) -> Batch:
        """Return a CPU batch without targets.

        Args:
            items: Arrays, tensors or lists with the shape of one sample, or a stacked array; with
                several inputs each sample is a dict by name or a tuple in order.

        Raises:
            InputError: There are no samples, or a sample has another shape, is not numeric or
                contains NaN or infinity. The message gives its number.
        """
        if not len(items):
            raise InputError("There are no samples to predict. Give at least one.")
        rows = [self._by_name(index, items[index]) for index in range(len(items))]
        inputs, more = (
            {
                name: torch.stack(
                    [_cast(name, index, row[name], spec) for index, row in enumerate(rows)]
                )
                for name, spec in specs.items()
            }
            for specs in (self.inputs, self.task_inputs)
        )
        for name, value in (*inputs.items(), *more.items()):
            if wrong := non_finite_rows(value):
                raise InputError(
                    f"Item {wrong[0]} contains NaN or infinity in {name!r}: "
                    f"{first_non_finite(value[wrong[0]])}. Fill in the value as in the train data."
                )
        return Batch(
            inputs,
            weight=float(len(items)),
            indices=torch.arange(len(items)),
            task_inputs=more,
        )

    def on_device(self, batch: Batch) -> Batch:
        """Standardise the selected inputs in their own dtype, then cast."""
        if not self.standardised and self._dtype is None:
            return batch
        inputs = dict(batch.inputs)
        for name in self.standardised:
            mean, scale = self._mean_and_scale(name, inputs[name])
            inputs[name] = (inputs[name] - mean) * scale
        if self._dtype is not None:
            for name, value in inputs.items():
                if value.is_floating_point():
                    inputs[name] = value.to(self._dtype)
        return replace(batch, inputs=inputs)

    def _mean_and_scale(self, name: str, value: Tensor) -> tuple[Tensor, Tensor]:
        key = name, value.device, value.dtype
        if key not in self._statistics:
            if self.mean is None or self.std is None:
                raise InputError("Standardisation needs mean and std. Fit the preprocessor again.")
            start = 0
            for other in self.standardised:
                shape = self.inputs[other]["shape"]
                width = shape[0] if len(shape) == 1 else 1
                mean, std = (part[start : start + width] for part in (self.mean, self.std))
                start += width
                if other == name:
                    scale = 1 / std
                    # Computed in float64 for precision; MPS does not support float64.
                    self._statistics[key] = (
                        mean.to(value.dtype).to(value.device),
                        scale.to(value.dtype).to(value.device),
                    )
        return self._statistics[key]

    def _by_name(self, index: int, item: Any) -> Mapping[str, Any]:
        names = (*self.inputs, *self.task_inputs)
        if isinstance(item, Mapping):
            values = cast(Mapping[str, Any], item)
            if missing := [name for name in names if name not in values]:
                found = ", ".join(map(repr, list(values)[:_SHOWN_FIELDS]))
                raise InputError(
                    f"Item {index} has no {missing[0]!r}, only {found}. The model needs "
                    f"{', '.join(names)}. If the columns of a frame are the numbers of a sample, "
                    "pass an array with the columns in the order of the train data: "
                    "frame[columns].to_numpy()."
                )
            return values
        if len(names) == 1:
            return {names[0]: item}
        row = cast(Sequence[Any], item if isinstance(item, tuple | list) else ())
        if len(row) != len(names):
            raise InputError(
                f"Item {index} is {_kind(cast(object, item))}, but the model has {len(names)} "
                f"inputs ({', '.join(names)}). Give a dict by name or a tuple in this order."
            )
        return dict(zip(names, row, strict=True))


def mean_and_std(value: Tensor, *, by_feature: bool) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation: float64, one value per feature or in total.

    The shape is ``(features,)`` with ``by_feature``, else ``(1,)``. The standard deviation of a
    constant feature is returned as 1. The data are read in chunks, without a float64 copy of them.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979).
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
    # The deviation of a constant feature is rounding error, which division would amplify.
    constant = std <= 1e-12 * mean.abs()
    return mean, torch.where(constant, torch.ones_like(std), std)


def non_finite_rows(value: Tensor, limit: int = 5) -> list[int]:
    """Return the first ``limit`` rows that contain NaN or infinity."""
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
    """Return the first NaN or infinity in one sample and its position: ``"nan in column 3"``."""
    if row.ndim == 0:
        return str(row.item())
    index = [int(each) for each in (~torch.isfinite(row)).nonzero()[0]]
    where = f"in column {index[0]}" if row.ndim == 1 else f"at index {tuple(index)}"
    return f"{row[tuple(index)].item()} {where}"


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype, ``"float32"`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: object) -> torch.dtype:
    """Return the dtype of a name, ``torch.float32`` for ``"float32"``.

    Raises:
        InputError: torch has no dtype of this name.
    """
    found: object = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(found, torch.dtype):
        raise InputError(f"torch has no dtype {name!r}. Give a name such as 'float32'.")
    return found


def _checked_spec(name: str, spec: object) -> dict[str, Any]:
    values = dict(cast(Mapping[str, Any], spec)) if isinstance(spec, Mapping) else {}
    shape: object = values.get("shape")
    sizes = cast("Sequence[object]", shape) if isinstance(shape, list | tuple) else [-1]
    if values.keys() != {"shape", "dtype"} or any(type(n) is not int or n < 0 for n in sizes):
        raise InputError(
            f"The description of input {name!r} is {spec!r:.80}. It must hold the shape of a "
            'sample and a dtype: {"shape": [3], "dtype": "float32"}.'
        )
    dtype_of(values["dtype"])
    return values


def _cast(name: str, index: int, value: Any, spec: Mapping[str, Any]) -> Tensor:
    dtype = dtype_of(spec["dtype"])
    what = f"Item {index} for {name!r}"
    refuse_masked(what, value)
    if isinstance(value, Tensor):
        refuse_unreadable(what, value)
    if not dtype.is_complex and _is_complex(value):
        raise InputError(
            f"{what} is complex ({value.dtype}), but the model was trained on real numbers. Give "
            "them as the train data."
        )
    try:
        tensor = torch.as_tensor(_as_in_training(name, value), dtype=dtype).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"Item {index} cannot be converted to a tensor for {name!r}: {value!r:.60} ({error})."
            f" Give numbers of shape {tuple(spec['shape'])}."
        ) from error
    if list(tensor.shape) != list(spec["shape"]):
        raise InputError(
            f"Item {index} has shape {tuple(tensor.shape)} for {name!r}, but the model was "
            f"trained on shape {tuple(spec['shape'])}. Prepare it as the train data."
        )
    return tensor


def _is_complex(value: Any) -> bool:
    return "complex" in str(getattr(value, "dtype", ""))


def _as_in_training(name: str, value: Any) -> Any:
    """Convert a NumPy array to a form that torch reads, as ``TensorData`` converts train data."""
    if not isinstance(value, np.ndarray | np.generic):
        return value
    [array] = as_columns(np.asarray(cast(Any, value)), name).values()
    if isinstance(array, Tensor):
        return array
    return native_array(array)


def _kind(item: object) -> str:
    return f"a {type(item).__name__}"
