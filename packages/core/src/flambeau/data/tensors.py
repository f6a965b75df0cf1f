"""``TensorData``: arrays and tensors in memory, behind ``Data.from_tensors``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.data.dataset import Facts
from flambeau.data.gather import MemoryDataset
from flambeau.data.plain import (
    PlainData,
    check_labels,
    describe_columns,
    describe_target,
    distinct_values,
)
from flambeau.data.preprocess import Preprocessor
from flambeau.data.split import PARTS, Split
from flambeau.data.tensor_preprocessor import TensorPreprocessor, non_finite_rows
from flambeau.errors import ArgumentError, InputError, SplitError

Array: TypeAlias = Tensor | NDArray[Any]
Arrays: TypeAlias = Array | Mapping[str, Array]
Pair: TypeAlias = tuple[Arrays, Arrays]

_COMPACT = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32)


class TensorData(PlainData):
    """Parts that are in memory already; ``Data.from_tensors`` builds it.

    Args:
        parts: "train", "valid" and maybe "test", with the same inputs and targets; NaN and
            infinity are refused.
        split: The row numbers of each part, as in the parts' ``ids``.
        task: "auto" leaves the choice to the plan.
        class_names: Names of the classes 0, 1, …, or of the target columns (several labels).
    """

    def __init__(
        self,
        parts: Mapping[str, MemoryDataset],
        split: Split,
        *,
        task: str = "auto",
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(split, task, class_names)
        self._parts = dict(parts)
        for part, dataset in self._parts.items():
            _check_like_train(self._parts["train"], part, dataset)
            _check_finite(part, dataset)

    def dataset(
        self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> MemoryDataset:
        return self._part(part)

    def preprocessor(self, values: Mapping[str, Any]) -> TensorPreprocessor:
        wanted = values.get("normalisation", "none")
        if wanted not in ("none", "standard"):
            raise InputError(f"normalisation is {wanted!r}, but it must be none or standard.")
        standardise = wanted == "standard"
        return TensorPreprocessor.fit(self._parts["train"].inputs, standardise=standardise)

    def raw(self, part: str) -> Sequence[Any]:
        """One row a sample: an array where there is one input, else a dict of them."""
        return Rows(self._part(part).inputs)

    def subset(self, rows: Mapping[str, Sequence[int]]) -> TensorData:
        parts = {part: self._rows(part, rows[part]) for part in PARTS if len(rows.get(part, ()))}
        return TensorData(
            parts,
            Split.given(rows.get("train", ()), rows.get("valid", ()), rows.get("test", ())),
            task=self._task,
            class_names=self._class_names,
        )

    def report(self) -> str:
        """Counts, shapes and classes, a line each."""
        facts = self.facts()
        shapes = [
            f"{kind} {name!r}: {tuple(value['shape'])} {value['dtype']}"
            for kind, columns in (("input", facts["inputs"]), ("target", facts["targets"]))
            for name, value in columns.items()
        ]
        lines = [str(self.split), *shapes]
        if "class_counts" in facts:
            named = zip(facts["class_names"], facts["class_counts"], strict=True)
            lines.append("train classes: " + ", ".join(f"{n} ({count:,})" for n, count in named))
        elif "target_distinct" in facts:
            lines.append(
                f"train targets: {facts['target_distinct']:,} distinct values from "
                f"{facts['target_min']:g} to {facts['target_max']:g}"
            )
        return "\n".join([*lines, f"in memory: {facts['memory_bytes'] / 1e6:,.1f} MB"])

    def _measure(self) -> Facts:
        train = self._parts["train"]
        facts: dict[str, Any] = {
            "inputs": describe_columns(train.inputs),
            "targets": describe_columns(train.targets),
            "in_memory": True,
            "memory_bytes": sum(dataset.memory_bytes for dataset in self._parts.values()),
        }
        if len(train.targets) == 1:
            facts |= describe_target(next(iter(train.targets.values())), self._class_names)
        return facts

    def _check_labels(self, n_classes: int) -> None:
        for part, dataset in self._parts.items():
            for target in dataset.targets.values():
                check_labels(target, n_classes, part, dataset.ids)

    def _rows(self, part: str, rows: Sequence[int]) -> MemoryDataset:
        """Rows of ``part`` by their numbers, which they keep."""
        place = {int(row): index for index, row in enumerate(self.split.part(part))}
        if unknown := [int(row) for row in rows if int(row) not in place]:
            raise InputError(f"Row {unknown[0]} is not in the {part} part, so subset has no such.")
        taken = _take(self._part(part), np.array([place[int(row)] for row in rows], dtype=np.int64))
        return MemoryDataset(taken.inputs, taken.targets, torch.tensor([int(row) for row in rows]))

    def _part(self, part: str) -> MemoryDataset:
        self.split.part(part)  # an unknown name is an error that says the known ones
        if part not in self._parts:
            raise InputError(f"There is no {part} part. Give {part}=… when building the data.")
        return self._parts[part]


class Rows(Sequence[Any]):
    """Tensors ``(n, …)`` seen as n samples, none of which is copied before it is asked for."""

    def __init__(self, columns: Mapping[str, Tensor]) -> None:
        self._columns = dict(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Any:
        rows = {name: value[index] for name, value in self._columns.items()}
        if isinstance(index, slice):
            return Rows(rows)
        return next(iter(rows.values())) if len(rows) == 1 else rows


def from_tensors(
    inputs: Arrays,
    targets: Arrays | None = None,
    *,
    valid: float | Pair = 0.2,
    test: float | Pair = 0.0,
    split: Split | None = None,
    seed: int = 0,
    stratify: bool | str = "auto",
    task: str = "auto",
    class_names: Sequence[str] | None = None,
) -> TensorData:
    """See ``Data.from_tensors``."""
    rows, labels = _columns(inputs, "input"), _columns(targets, "target")
    if class_names is None:
        labels, class_names = _numbered(labels)
    whole = MemoryDataset(_numbers(rows), _targets(_numbers(labels)))
    if isinstance(valid, tuple) or isinstance(test, tuple):
        parts, split = _given_parts(whole, valid, test, split)
    else:
        if split is None:
            classes = _classes_to_stratify(whole, task, stratify)
            split = Split.random(len(whole), valid, test, seed, classes)
        split.check_length(len(whole))
        parts = {part: _take(whole, split.part(part)) for part in PARTS if len(split.part(part))}
    return TensorData(parts, split, task=task, class_names=class_names)


def _columns(arrays: Arrays | None, kind: str) -> dict[str, Array]:
    if arrays is None:
        return {}
    columns = dict(arrays) if isinstance(arrays, Mapping) else {kind: arrays}
    for name, value in columns.items():
        if not isinstance(cast(object, value), Tensor | np.ndarray):
            raise ArgumentError(
                f"{name!r} is a {type(value).__name__}, not a tensor or NumPy array. Convert it: "
                "torch.as_tensor(…), or .to_numpy() for a frame."
            )
    return columns


def _numbered(columns: dict[str, Array]) -> tuple[dict[str, Array], Sequence[str] | None]:
    """One column of words becomes the ranks of the words, which are the class names."""
    [value] = columns.values() if len(columns) == 1 else [None]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "UST" or value.ndim != 1:
        return columns, None
    names, codes = np.unique(value, return_inverse=True)
    return {next(iter(columns)): codes.reshape(-1)}, [str(name) for name in names]


def _numbers(columns: Mapping[str, Array]) -> dict[str, Tensor]:
    """CPU tensors. NumPy's float64 is its default, not a wish: it becomes torch's default."""
    tensors: dict[str, Tensor] = {}
    for name, value in columns.items():
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu()
            continue
        if value.dtype.kind not in "fiub":
            raise InputError(
                f"{name!r} holds {value.dtype}, not numbers: encode it as numbers first (classes "
                "as 0, 1, …)."
            )
        native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
        # torch warns of read-only memory (memory maps), which it could not protect.
        tensor = torch.as_tensor(native if native.flags.writeable else native.copy())
        is_default = tensor.dtype == torch.float64
        tensors[name] = tensor.to(torch.get_default_dtype()) if is_default else tensor
    return tensors


def _targets(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Labels as int64, which torch's losses take; a table of truth values as floats."""
    targets: dict[str, Tensor] = {}
    for name, value in columns.items():
        if value.dtype == torch.bool and value.ndim > 1:
            targets[name] = value.to(torch.get_default_dtype())
        else:
            targets[name] = value.long() if value.dtype in _COMPACT else value
    return targets


def _classes_to_stratify(
    whole: MemoryDataset, task: str, stratify: bool | str
) -> NDArray[Any] | None:
    if stratify is False or (stratify == "auto" and len(whole.targets) != 1):
        return None
    if stratify not in (True, "auto"):
        raise ArgumentError(f"stratify={stratify!r}: give True, False or 'auto'.")
    if len(whole.targets) != 1:
        raise InputError(f"stratify=True needs exactly one target, not {len(whole.targets)}.")
    [target] = whole.targets.values()
    if stratify is True and target.ndim != 1:
        raise InputError(f"stratify=True needs one class a row, not {tuple(target.shape)} targets.")
    if stratify == "auto":
        is_label = target.ndim == 1 and not target.is_floating_point()
        # Fewer than 5 rows a value: an amount or an identifier, whose shares nobody keeps.
        if not is_label or task == "regression" or len(distinct_values(target)) > len(target) / 5:
            return None
    return target.numpy()


def _take(whole: MemoryDataset, rows: NDArray[np.int64]) -> MemoryDataset:
    ids = torch.tensor(rows)
    return MemoryDataset(
        {name: value.index_select(0, ids) for name, value in whole.inputs.items()},
        {name: value.index_select(0, ids) for name, value in whole.targets.items()},
        ids,
    )


def _given_parts(
    whole: MemoryDataset, valid: float | Pair, test: float | Pair, split: Split | None
) -> tuple[dict[str, MemoryDataset], Split]:
    """Parts that came as arrays of their own; their rows are counted on."""
    if (
        split is not None
        or not isinstance(valid, tuple)
        or not (test == 0 or isinstance(test, tuple))
    ):
        raise SplitError(
            "Arrays for valid or test leave nothing to draw: give valid=(inputs, targets), and "
            "test the same way or not at all, and no split."
        )
    parts = {"train": whole}
    for part, pair in (("valid", valid), ("test", test)):
        if isinstance(pair, tuple):
            inputs, targets = (_numbers(_columns(a, k)) for a, k in zip(pair, _KINDS, strict=True))
            parts[part] = MemoryDataset(inputs, _targets(targets))
    return number_parts(parts)


_KINDS = ("input", "target")


def number_parts(
    parts: Mapping[str, MemoryDataset],
) -> tuple[dict[str, MemoryDataset], Split]:
    """Separate parts with sample numbers that go on from one to the next, and their split."""
    numbered: dict[str, MemoryDataset] = {}
    start = 0
    for part, dataset in parts.items():
        ids = torch.arange(start, start + len(dataset))
        numbered[part] = MemoryDataset(dataset.inputs, dataset.targets, ids)
        start += len(dataset)
    rows = {part: cast(Tensor, dataset.ids).numpy() for part, dataset in numbered.items()}
    return numbered, Split.given(rows["train"], rows["valid"], rows.get("test", ()))


def _check_like_train(train: MemoryDataset, part: str, dataset: MemoryDataset) -> None:
    for kind in ("inputs", "targets"):
        wanted, found = (describe_columns(getattr(data, kind)) for data in (train, dataset))
        if wanted != found:
            raise InputError(f"The {part} {kind} are {found}, but the train {kind} are {wanted}.")


def _check_finite(part: str, dataset: MemoryDataset) -> None:
    for name, value in (*dataset.inputs.items(), *dataset.targets.items()):
        if rows := non_finite_rows(value):
            ids = rows if dataset.ids is None else [int(dataset.ids[row]) for row in rows]
            raise InputError(
                f"{name!r} holds NaN or infinity in {part} row{'s' if len(ids) > 1 else ''} "
                f"{', '.join(map(str, ids))}{', …' if len(ids) == 5 else ''}. Fill these values in "
                "or drop the rows."
            )
