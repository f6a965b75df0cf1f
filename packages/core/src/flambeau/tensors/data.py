"""``TensorData``: the data of core's own domain, tensors and arrays in memory."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from flambeau.data.collate import BatchLayout
from flambeau.data.data import digest
from flambeau.data.facts import FEWEST_ROWS_PER_CLASS
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.reading import Reading, readings_as_facts
from flambeau.data.split import HELD_OUT, Rows, Split
from flambeau.data.split_request import SplitRequest
from flambeau.data.tensor_sequence import TensorSequence
from flambeau.errors import ArgumentError, InputError, explains_arguments
from flambeau.tensors.base_data import (
    BaseTensorData,
    describe_columns,
    describe_one_hot,
    describe_target,
    resolve_class_names,
)
from flambeau.tensors.checks import (
    check_finite,
    find_rows_also_in_train,
    match_train_columns,
)
from flambeau.tensors.columns import Array, Arrays
from flambeau.tensors.preprocess import TensorPreprocessor, mean_and_std
from flambeau.tensors.splitting import Pair, assign_sample_numbers, split_arrays
from flambeau.tensors.user_data import UserData, as_names, dataset_of, given_parts
from flambeau.wording import format_bytes, name_some

_DIGEST_ROWS = 32
_MAX_CLASSES = 30  # classes listed in a report


@explains_arguments()
class TensorData(BaseTensorData):
    """Data in memory; created by ``TensorData.from_tensors``.

    Args:
        parts: "train", "valid" and optionally "test" and "calibration", with the same inputs and
            targets. NaN and infinity raise an error.
        split: The row numbers of each part, equal to the ``ids`` of the parts.
        task: The task; "auto" lets the plan choose.
        class_names: Names of the classes 0, 1, …, or of the target columns (multi-label and
            regression).
        like: Folder of an export, whose task and class names are used if these are not set.
    """

    def __init__(
        self,
        parts: Mapping[str, MemoryDataset],
        split: Split,
        *,
        task: str = "auto",
        class_names: Sequence[str] | None = None,
        like: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(split, task, class_names, like)
        train = parts["train"]
        self._parts = {part: match_train_columns(train, part, each) for part, each in parts.items()}
        self._labelled: dict[str, MemoryDataset] = {}
        self._warned = False
        for part, dataset in self._parts.items():
            check_finite(part, dataset)

    @classmethod
    def from_tensors(  # noqa: PLR0913 each part of the split is an argument
        cls,
        inputs: Arrays,
        targets: Arrays | None = None,
        *,
        valid: float | Pair | None = 0.2,
        test: float | Pair = 0.0,
        calibration: float | Pair = 0.0,
        split: Split | None = None,
        seed: int = 0,
        stratify: bool | str = "auto",
        task: str = "auto",
        class_names: Sequence[str] | None = None,
        sample_weight: Array | None = None,
        task_inputs: Mapping[str, Array | Sequence[Any]] | None = None,
        like: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Create data from tensors, arrays, lists or columns of a table, the fastest way to train.

        Tensors keep their dtype; NumPy's float64 becomes torch's default dtype, unless its
        rounding would merge the values (1.7e9 and 1.7e9 + 1 in float32). Integer targets become
        int64. String targets (one per row) become class numbers in sorted order.

        Args:
            inputs: ``(n, …)``, or a dict of such arrays in the order of the model's arguments.
            targets: ``(n,)`` or ``(n, k)``, or a dict; None if the task needs no targets. In a dict
                of several targets NaN marks a target that a row does not have; the task must then
                ignore it (``Regression(ignore_nan=True)`` in a ``CombinedTask``).
            valid: Size of valid (fraction or number of rows), or ``(inputs, targets)``; 0 or None
                trains on all rows, without validation scores.
            test: Likewise; no test part by default. A part with a size is drawn from the rows of
                ``inputs``.
            calibration: Likewise, for ``learner.calibrate``; none by default.
            split: The row numbers of each part, instead of sizes.
            seed: Seed of the random split.
            stratify: Keep the class proportions in each part; "auto" does so if the targets are
                classes.
            task: "classification", "multi_label", "regression", "quantile_regression", "poisson",
                "gamma" or "tweedie" (``docs/targets.md``); "auto" lets the plan choose.
            class_names: Names of the classes 0, 1, …, or of the columns of multi-label and
                regression targets; also a dict from numbers to names or from names to numbers.
                Text labels are by default sorted; ordered categoricals keep their order.
            sample_weight: Weight of each row of ``inputs`` in loss and metrics, ``(n,)``: finite
                and not negative. None weighs all rows equally. The rows of a part that is given as
                ``(inputs, targets)`` always have equal weights. See ``docs/weights.md``.
            task_inputs: Arrays ``(n,)`` by name that the task reads and the model does not receive,
                unchanged, such as the offset of ``Poisson(offset="exposure")``. A sample to predict
                is then a dict with its inputs and these names. See ``docs/targets.md``.
            like: Folder of an export. Its task and class names are used if these are not set, and a
                learner uses its preprocessor. See ``docs/training.md``.

        Raises:
            ArtefactError: ``like`` is not an export of ``TensorData``.
            InputError: A value is NaN or infinite (the message gives rows), columns differ in
                length, a sample weight is negative, or inputs or classes differ from ``like``.
            SplitError: The data cannot be split as requested.

        Example:
            >>> import torch
            >>> data = TensorData.from_tensors(torch.randn(100, 4), torch.arange(100) % 3)
            >>> data.split.describe()
            'random, stratified (seed 0): 80 train, 20 valid, 0 test rows'
        """
        class_names = resolve_class_names(class_names, None)
        if like is not None:
            from flambeau.tensors.like import targets_like

            task, class_names = targets_like(like, task, class_names)
        parts, given, names = split_arrays(
            inputs,
            targets,
            SplitRequest(valid, test, split, seed, stratify, calibration),
            task=task,
            class_names=class_names,
            sample_weight=sample_weight,
            task_inputs=task_inputs,
        )
        return cls(parts, given, task=task, class_names=names, like=like)

    @classmethod
    def from_datasets(  # noqa: PLR0913 each part of the split is an argument
        cls,
        train: Any,
        valid: Any = None,
        test: Any = None,
        calibration: Any = None,
        *,
        n_inputs: int | None = None,
        inputs: Sequence[str] | None = None,
        targets: Sequence[str] | None = None,
        task: str = "auto",
        class_names: Sequence[str] | None = None,
        n_classes: int | None = None,
        like: str | os.PathLike[str] | None = None,
    ) -> Self | UserData:
        """Create data from map-style torch data sets or Hugging Face data sets.

        A ``TensorDataset``, also a ``Subset`` of one (``random_split``), and Hugging Face columns
        that are all scalar numbers, are loaded into memory. Any other data set is read sample by
        sample in every epoch, because it may augment (in worker processes if the plan's
        ``num_workers`` is above 0).

        Args:
            train: A data set with ``__len__`` and ``__getitem__``; it is shuffled automatically.
            valid: Likewise, not shuffled; None trains without validation scores.
            test: Likewise, for the final evaluation.
            calibration: Likewise, for ``learner.calibrate``.
            n_inputs: For samples that are tuples: the first ``n_inputs`` fields are inputs, the
                others targets. By default a sample is ``(input, target)``.
            inputs: For samples that are dicts: names of the inputs in the order of the model's
                arguments.
            targets: For samples that are dicts: names of the targets.
            task: "classification", "multi_label", "regression", "quantile_regression", "poisson",
                "gamma" or "tweedie" (``docs/targets.md``); "auto" lets the plan choose.
            class_names: Names of the classes 0, 1, …; by default those of a Hugging Face
                ``ClassLabel`` target.
            n_classes: Number of classes, in place of ``class_names``.
            like: As in ``from_tensors``.

        Raises:
            ArgumentError: A data set is not map-style, or a column does not exist.
            InputError: A sample does not match ``n_inputs``, ``inputs`` or ``targets``; or a
                ``ClassLabel`` column, ``classes`` or ``class_to_idx`` differ from those of train.

        Example:
            >>> import torch
            >>> from torch.utils.data import TensorDataset
            >>> pairs = TensorDataset(torch.randn(10, 4), torch.arange(10) % 2)
            >>> TensorData.from_datasets(pairs, pairs).facts()["class_names"]
            ['0', '1']
        """
        from flambeau.tensors.hugging_face import check_label_names, class_label_names

        class_names = resolve_class_names(class_names, None)
        layout = BatchLayout(n_inputs, as_names(inputs), as_names(targets))
        given = given_parts(train, valid, test, calibration, class_names)
        parts = {part: dataset_of(part, each, layout) for part, each in given.items()}
        check_label_names(given, layout, class_names)
        named = class_names or (None if n_classes else class_label_names(train, layout))
        if like is not None:
            from flambeau.tensors.like import targets_like

            task, named = targets_like(like, task, named)
        classes = resolve_class_names(named, n_classes)
        memory = {part: each for part, each in parts.items() if isinstance(each, MemoryDataset)}
        if len(memory) == len(parts):
            numbered, split = assign_sample_numbers(memory)
            return cls(numbered, split, task=task, class_names=classes, like=like)
        cls._check_domain("from_datasets", "a data set that is read sample by sample")
        # All parts are read the same way, so that train and validation parts cannot differ.
        return UserData.from_map_style(given, layout, task=task, class_names=classes, like=like)

    @classmethod
    def from_loaders(  # noqa: PLR0913 each part of the split is an argument
        cls,
        train: Iterable[Any],
        valid: Iterable[Any] | None = None,
        test: Iterable[Any] | None = None,
        calibration: Iterable[Any] | None = None,
        *,
        n_inputs: int | None = None,
        inputs: Sequence[str] | None = None,
        targets: Sequence[str] | None = None,
        task: str = "auto",
        class_names: Sequence[str] | None = None,
        n_classes: int | None = None,
        like: str | os.PathLike[str] | None = None,
    ) -> UserData:
        """Create data from user-defined loaders, whose batch size, order and workers are kept.

        Shuffling and augmentation are seeded by the run's seed, so that a run can be resumed; see
        ``UserLoader``. ``from_datasets`` is faster if the data sets are available.

        Args:
            train: A ``DataLoader``, or an iterable with ``len()`` over the batches of an epoch:
                tuples, dicts, or ``Batch`` objects with weights, masks and extras.
            valid: Likewise; should not shuffle. None trains without validation scores.
            test: Likewise, for the final evaluation.
            calibration: Likewise, for ``learner.calibrate``.
            n_inputs: As in ``from_datasets``, for batches that are tuples.
            inputs: As in ``from_datasets``, for batches that are dicts.
            targets: As in ``from_datasets``, for batches that are dicts.
            task: "classification", "multi_label", "regression", "quantile_regression", "poisson",
                "gamma" or "tweedie" (``docs/targets.md``); "auto" lets the plan choose.
            class_names: Names of the classes 0, 1, …
            n_classes: Number of classes, in place of ``class_names``.
            like: As in ``from_tensors``.

        Raises:
            ArgumentError: A loader is not an iterable, or is an iterator that can be used once.
            InputError: A loader has no length, or a batch does not match ``n_inputs``, ``inputs``
                or ``targets``.

        Warns:
            FlambeauWarning: The train loader does not shuffle, or another loader does.
        """
        cls._check_domain("from_loaders", "a loader")
        class_names = resolve_class_names(class_names, None)
        if like is not None:
            from flambeau.tensors.like import targets_like

            task, class_names = targets_like(like, task, class_names)
        return UserData.from_loaders(
            given_parts(train, valid, test, calibration, class_names),
            layout=BatchLayout(n_inputs, as_names(inputs), as_names(targets)),
            task=task,
            class_names=resolve_class_names(class_names, n_classes),
            like=like,
        )

    @classmethod
    def _check_domain(cls, constructor: str, source: str) -> None:
        """Raise an error if data from ``constructor`` would have another domain than the class."""
        if cls.domain != TensorData.domain:
            raise ArgumentError(
                f"{cls.__name__}.{constructor} cannot use {source}: its data would be UserData of "
                f"core's domain instead of {cls.domain}. Give the class a constructor of its own, "
                "or use from_tensors."
            )

    @property
    def issued_warnings(self) -> Collection[str]:
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
            raise InputError(f"normalisation is {wanted!r}, but must be 'none' or 'standard'.")
        return TensorPreprocessor.fit(
            self._parts["train"].inputs,
            standardise=wanted == "standard",
            dtype=values.get("input_dtype"),
            task_inputs=self._parts["train"].task_inputs,
        )

    def raw(self, part: str) -> Sequence[Any]:
        """Return the samples of a part: each a tensor if there is one input, else a dict."""
        dataset = self._part(part)
        return TensorSequence({**dataset.inputs, **dataset.task_inputs})

    def subset(self, rows: Mapping[str, Sequence[int]]) -> Self:
        from flambeau.tensors.resplitting import check_in_part

        check_in_part(self._split, rows)
        return self.with_split(Split.from_parts(rows))

    def split_arguments(self, rows: Rows) -> Mapping[str, Any]:
        from flambeau.tensors.resplitting import strata

        return {"stratify": strata(self._parts, self._split, rows, self._task)}

    def with_split(self, split: Split) -> Self:
        from flambeau.tensors.resplitting import redistributed

        return type(self)(
            redistributed(self._parts, self._split, split),
            split,
            task=self._task,
            class_names=self._class_names,
            like=self._like,
        )

    def fingerprint(self) -> dict[str, Any]:
        """Return the fingerprint of ``Data`` and a digest of the first and last train rows."""
        train = self._parts["train"]
        parts = (train.inputs, train.targets, train.weights, train.task_inputs)
        columns = [value for part in parts for value in part.values()]
        ends = [end for value in columns for end in (value[:_DIGEST_ROWS], value[-_DIGEST_ROWS:])]
        rows = digest(b"".join(map(_bytes, ends)))
        return {**super().fingerprint(), "first and last train rows": f"digest {rows}"}

    def report(self) -> str:
        """Return split, shapes, classes, duplicates and memory, one per line."""
        facts = self.facts()
        shapes = [
            f"{kind} {name!r}: {tuple(value['shape'])} {value['dtype']}"
            for kind, columns in (("input", facts["inputs"]), ("target", facts["targets"]))
            for name, value in columns.items()
        ]
        lines = [str(self.split), *shapes]
        if "class_counts" in facts and "class_names" in facts and self._has_classes():
            named = zip(facts["class_names"], facts["class_counts"], strict=True)
            shown = name_some((f"{n} ({count:,})" for n, count in named), most=_MAX_CLASSES)
            lines.append(f"train classes: {shown}")
        elif "target_distinct" in facts and "target_min" in facts and "target_max" in facts:
            lines.append(
                f"train targets: {facts['target_distinct']:,} distinct values from "
                f"{facts['target_min']:g} to {facts['target_max']:g}"
            )
        if (weights := self._parts["train"].sample_weight) is not None:
            lines.append(f"train sample weights: {weights.min():g} to {weights.max():g}")
        lines += [f"note: {Reading(**reading)}" for reading in facts.get("readings", ())]
        for part in HELD_OUT:
            if part in self._parts and (same := self._also_in_train(part)):
                lines.append(same)
        return "\n".join([*lines, f"memory: {format_bytes(facts.get('memory_bytes', 0))}"])

    def _has_classes(self) -> bool:
        """Return whether targets with class counts are probably classes, as the plan decides."""
        facts = self.facts()
        if self._task != "auto" or facts.get("class_names_given") or facts.get("target_one_hot"):
            return self._task != "regression"
        return facts.get("target_distinct", 0) * FEWEST_ROWS_PER_CLASS <= facts["n_train"]

    def _also_in_train(self, part: str) -> str:
        same = find_rows_also_in_train(self._parts["train"], self._parts[part])
        if not same:
            return ""
        shown = ", ".join(f"{row} is train row {other}" for row, other in same[:5])
        more = ", …" if len(same) > 5 else ""
        return f"{part} rows with the inputs of a train row: {len(same):,} (row {shown}{more})"

    def _measure(self) -> dict[str, Any]:
        train = self._parts["train"]
        facts: dict[str, Any] = {
            "inputs": describe_columns(train.inputs),
            "targets": describe_columns(train.targets),
            "in_memory": True,
            "memory_bytes": sum(dataset.memory_bytes for dataset in self._parts.values()),
        }
        if len(train.targets) == 1:
            from flambeau.data.class_labels import is_one_hot

            [target] = train.targets.values()
            facts |= describe_target(target, self._class_names, train.sample_weight)
            if is_one_hot(target) and self._task in ("auto", "classification"):
                facts |= describe_one_hot(target, self._class_names)
            if self._task == "auto" and (target.ndim > 1 or len(self._class_names or ()) < 2):
                from flambeau.tensors.target_readings import doubts_about_targets

                distinct = facts.get("target_distinct", 0)
                doubts = doubts_about_targets(target, self._split.train, distinct)
                facts |= readings_as_facts(doubts)
        return facts

    def _classes(self) -> list[str]:
        facts = self.facts()
        if "class_names" not in facts and facts.get("target_shape") == []:
            labels = self._with_labels("train").targets.values()
            facts = describe_target(next(iter(labels)), None)
            if "class_names" in facts:
                return list(facts["class_names"])
        return super()._classes()

    def _log_arguments(self, log: str) -> dict[str, Any]:
        from flambeau.task.target_transform import checked_log, to_log

        name = checked_log(log)
        [target] = self._parts["train"].targets.values()
        values = to_log(target, name or "log").reshape(len(target), -1)
        mean, std = mean_and_std(values, by_feature=True)
        return {"log": name, "mean": mean.numpy().tolist(), "std": std.numpy().tolist()}

    def _log_link_arguments(self) -> dict[str, Any]:
        """Return the mean of the train targets; with a task input, the mean rate and its name."""
        found = super()._log_link_arguments()
        train = self._parts["train"]
        if not train.task_inputs:
            return found
        if len(train.task_inputs) > 1:
            raise InputError(
                f"The data have the task inputs {', '.join(train.task_inputs)}, so the offset is "
                "ambiguous. Pass the task: Learner(data, task=Poisson(names, offset=…))."
            )
        [(name, offset)] = train.task_inputs.items()
        exposure = float(offset.double().exp().mean())
        mean = [value / exposure for value in found.get("mean", ())]
        return {"offset": name, **({"mean": mean} if mean else {})}

    def _check_labels(self, classes: Sequence[str]) -> None:
        from flambeau.data.class_labels import check_labels, warn_about_absent_classes

        parts = {part: self._with_labels(part) for part in self._parts}
        for part, dataset in parts.items():
            check_labels(part, dataset, classes, self._ignored_label())
        if not self._warned:
            self._warned = True
            fix = "Number the classes from 0 without gaps: np.unique(labels, return_inverse=True)."
            if self._like is not None:
                fix = "Add train rows of it: without them, training lowers its probability."
            elif self._class_names is not None:
                fix = "Remove it from class_names, or add train rows of it."
            warn_about_absent_classes(parts, classes, fix=fix)

    def _check_label_columns(self) -> None:
        from flambeau.data.class_labels import check_label_columns

        for part, dataset in self._parts.items():
            check_label_columns(part, dataset)

    def _with_labels(self, part: str) -> MemoryDataset:
        """Return the part with class numbers as int64; floats and one-hot rows are converted."""
        dataset = self._part(part)
        one_hot = self.facts().get("target_one_hot", False)
        if not one_hot and not any(v.is_floating_point() for v in dataset.targets.values()):
            return dataset
        if part not in self._labelled:
            from flambeau.data.class_labels import labels_to_int64

            self._labelled[part] = labels_to_int64(part, dataset, one_hot=one_hot)
        return self._labelled[part]

    def _part(self, part: str) -> MemoryDataset:
        self.split.part(part)  # raises an error for an unknown name
        if part not in self._parts:
            raise InputError(f"The data have no {part} part. Give {part}=… when creating the data.")
        return self._parts[part]


def _bytes(value: Tensor) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
