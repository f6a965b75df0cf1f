"""``TensorData``: arrays and tensors in memory, behind ``Data.from_tensors``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.data.checks import (
    check_finite,
    check_label_columns,
    check_labels,
    like_train,
    rows_in_train,
    warn_of_absent_classes,
    whole_labels,
)
from flambeau.data.columns import Arrays, as_columns, as_targets, as_tensors, number_words
from flambeau.data.dataset import Facts
from flambeau.data.gather import MemoryDataset
from flambeau.data.plain import PlainData, describe_columns, describe_target, distinct_values
from flambeau.data.preprocess import Preprocessor
from flambeau.data.split import PARTS, Split
from flambeau.data.tensor_preprocessor import TensorPreprocessor
from flambeau.errors import ArgumentError, InputError, SplitError

Pair: TypeAlias = tuple[Arrays, Arrays]


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
        train = parts["train"]
        self._parts = {part: like_train(train, part, each) for part, each in parts.items()}
        self._labelled: dict[str, MemoryDataset] = {}
        self._warned = False
        for part, dataset in self._parts.items():
            check_finite(part, dataset)

    @property
    def warned(self) -> Collection[str]:
        return ("class-not-in-train",) if self._warned else ()

    def dataset(
        self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> MemoryDataset:
        if values.get("task") == "classification":
            return self._with_labels(part)
        return self._part(part)

    def preprocessor(self, values: Mapping[str, Any]) -> TensorPreprocessor:
        wanted = values.get("normalisation", "none")
        if wanted not in ("none", "standard"):
            raise InputError(f"normalisation is {wanted!r}, but it must be none or standard.")
        return TensorPreprocessor.fit(
            self._parts["train"].inputs,
            standardise=wanted == "standard",
            dtype=values.get("input_dtype"),
        )

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
        for part in ("valid", "test"):
            if part in self._parts and (same := self._also_in_train(part)):
                lines.append(same)
        return "\n".join([*lines, f"in memory: {facts['memory_bytes'] / 1e6:,.1f} MB"])

    def _also_in_train(self, part: str) -> str:
        same = rows_in_train(self._parts["train"], self._parts[part])
        if not same:
            return ""
        shown = ", ".join(f"{row} is train row {other}" for row, other in same[:5])
        more = ", …" if len(same) > 5 else ""
        return f"{part} rows whose inputs are in train too: {len(same):,} (row {shown}{more})"

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

    def _classes(self) -> list[str]:
        facts = self.facts()
        if "class_names" not in facts and facts.get("target_shape") == []:
            labels = self._with_labels("train").targets.values()
            facts = describe_target(next(iter(labels)), None)
            if "class_names" in facts:
                return list(facts["class_names"])
        return super()._classes()

    def _check_labels(self, classes: Sequence[str]) -> None:
        parts = {part: self._with_labels(part) for part in self._parts}
        for part, dataset in parts.items():
            check_labels(part, dataset, classes)
        if not self._warned:
            self._warned = True
            warn_of_absent_classes(parts, classes, named=self._class_names is not None)

    def _check_label_columns(self) -> None:
        for part, dataset in self._parts.items():
            check_label_columns(part, dataset)

    def _with_labels(self, part: str) -> MemoryDataset:
        """The part with class numbers as int64, even where they came as floats."""
        dataset = self._part(part)
        if not any(value.is_floating_point() for value in dataset.targets.values()):
            return dataset
        if part not in self._labelled:
            self._labelled[part] = whole_labels(part, dataset)
        return self._labelled[part]

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
    if inputs is None:  # pyright: ignore[reportUnnecessaryComparison] users err
        raise ArgumentError("inputs is None. Give a tensor, an array, or a dict of them.")
    given = {"train": (inputs, targets)} | _given_pairs(valid, test, split)
    columns = {part: as_columns(pair[0], "input") for part, pair in given.items()}
    labels = {part: as_columns(pair[1], "target") for part, pair in given.items()}
    labels, names = number_words(labels, class_names)
    if names is not class_names and task == "regression":
        raise InputError(
            "The targets are words, which task='regression' has no use for. Give numbers, or "
            "leave the task to the plan."
        )
    parts = {
        part: MemoryDataset(as_tensors(columns[part]), as_targets(labels[part])) for part in given
    }
    if len(parts) > 1:
        parts, split = number_parts(parts)
        return TensorData(parts, split, task=task, class_names=names)
    whole = parts["train"]
    if split is None:
        classes = _classes_to_stratify(whole, task, stratify)
        shares = cast("float", valid), cast("float", test)
        split = Split.random(len(whole), *shares, seed, classes)
    elif not isinstance(split, Split):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        raise ArgumentError(
            f"split is a {type(split).__name__}, not a Split. Row numbers become one with "
            "Split.given(train, valid)."
        )
    split.check_length(len(whole))
    parts = {part: _take(whole, split.part(part)) for part in PARTS if len(split.part(part))}
    return TensorData(parts, split, task=task, class_names=names)


def _given_pairs(
    valid: float | Pair, test: float | Pair, split: Split | None
) -> dict[str, tuple[Arrays, Arrays | None]]:
    """Parts that came as arrays of their own; empty where the rows are drawn."""
    pairs = {
        part: value
        for part, value in (("valid", valid), ("test", test))
        if isinstance(value, tuple)
    }
    if not pairs:
        return {}
    if split is not None or "valid" not in pairs or not (test == 0 or "test" in pairs):
        raise SplitError(
            "Arrays for valid or test leave nothing to draw: give valid=(inputs, targets), and "
            "test the same way or not at all, and no split."
        )
    for part, pair in pairs.items():
        if len(pair) != 2:
            raise ArgumentError(
                f"{part} is a tuple of {len(pair)}; give two: {part}=(inputs, targets)."
            )
    return dict(pairs)


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
