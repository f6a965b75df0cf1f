"""``BaseTensorData``: the base class of ``TensorData`` and ``UserData``."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor

from flambeau.checked_arguments import checked_count
from flambeau.data.data import Data, head_arguments, select_values
from flambeau.data.facts import IGNORED, ColumnFacts, class_totals
from flambeau.data.preprocess import Preprocessor
from flambeau.data.split import PARTS, Split
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.task.named_losses import loss_arguments
from flambeau.tensors.preprocess import dtype_name, mean_and_std

LOG_LINK_TASKS = ("poisson", "gamma", "tweedie")
NUMBER_TASKS = ("regression", "quantile_regression", *LOG_LINK_TASKS)
"""Tasks whose targets are amounts, not labels."""

if TYPE_CHECKING:
    from flambeau.tensors.facts import TensorFacts

TASKS = ("auto", "classification", "multi_label", *NUMBER_TASKS)


class BaseTensorData(Data):
    """Data with numeric inputs and targets, for an MLP or a user-defined model."""

    domain: ClassVar[str] = "flambeau.tensors.domain:DOMAIN"

    def __init__(
        self,
        split: Split,
        task: str,
        class_names: Sequence[str] | None,
        like: str | os.PathLike[str] | None = None,
    ) -> None:
        if task not in TASKS:
            raise ArgumentError(f"Unknown task {task!r}. {did_you_mean(task, TASKS)}")
        class_names = resolve_class_names(class_names, None)
        if like is not None:
            from flambeau.tensors.like import targets_like

            task, class_names = targets_like(like, task, class_names)
        self._split = split
        self._like = None if like is None else Path(like)
        self._task = task
        self._class_names = None if class_names is None else tuple(class_names)
        self._facts: TensorFacts | None = None

    @property
    def split(self) -> Split:
        return self._split

    @property
    def like(self) -> Path | None:
        return self._like

    @property
    def choices(self) -> Mapping[str, Any]:
        return {} if self._task == "auto" else {"task": self._task}

    def facts(self) -> TensorFacts:
        if self._facts is None:
            sizes = {f"n_{part}": len(self._split.part(part)) for part in PARTS}
            measured = self._measure()
            if self._like is not None:
                from flambeau.tensors.like import check_inputs_like

                check_inputs_like(self._like, measured["inputs"])
            named = {"class_names_given": True} if len(self._class_names or ()) > 1 else {}
            facts = {**sizes, "split": self._split.describe(), **measured, **named}
            self._facts = cast("TensorFacts", facts)
        return self._facts

    def is_loaded(self, part: str, values: Mapping[str, Any]) -> bool:
        return True

    @abstractmethod
    def _measure(self) -> dict[str, Any]:
        """Return the facts about inputs and targets."""

    def model_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        arguments = self.task_arguments(preprocessor, values)
        columns = self.facts()["inputs"]
        names = arguments["names"] if "names" in arguments else arguments["classes"]
        return {
            # The MLP concatenates its inputs.
            "n_inputs": sum(math.prod(column["shape"]) for column in columns.values()),
            "n_outputs": len(names) * len(arguments.get("quantiles", [None])),
            **head_arguments(values),
        }

    def task_arguments(
        self, preprocessor: Preprocessor, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        task = values["task"]
        shape = self._target_shape(task)
        if task == "classification":
            names = self._classes()
            if len(names) < 2:
                if self.facts().get("target_distinct", 1) > 1:
                    raise InputError(
                        f"class_names has the single name {names[0]!r}, but classification needs "
                        "at least two classes. Name every class, or omit class_names."
                    )
                raise InputError(
                    f"All {self.facts()['n_train']:,} train rows have the class "
                    f"{names[0] if names else ''!r}, but classification needs at least two classes."
                    " Add rows of another class. If the train and validation parts are slices of "
                    "sorted rows, use a random split (valid=0.2)."
                )
            self._check_labels(names)
            loss = loss_arguments(values, class_totals(self.facts()))
            ignored = self._ignored_label()
            more = {} if ignored is None else {"ignore_index": ignored}
            return {"classes": names, **select_values(values, "metrics"), **loss, **more}
        if task == "multi_label":
            self._check_label_columns()
            width = shape[-1] if shape else 1
            names = list(self._class_names or map(str, range(width)))
            if len(names) != width:
                raise InputError(
                    f"class_names has {len(names)} names, but the targets have {width} columns. "
                    "Give one name per column."
                )
            return {"classes": names, **select_values(values, "metrics")}
        arguments: dict[str, Any] = {
            "names": self._value_names(shape[-1] if shape else 1),
            **select_values(values, "metrics"),
            **loss_arguments(values),
        }
        facts = self.facts()
        if task in LOG_LINK_TASKS:
            return arguments | self._log_link_arguments()
        if task == "quantile_regression":
            from flambeau.task.quantiles import LEVELS

            arguments["quantiles"] = list(LEVELS)
        if values.get("targets") in ("log", "log1p"):
            return arguments | self._log_arguments(values["targets"])
        if values.get("targets") == "standard" and "target_mean" in facts and "target_std" in facts:
            arguments |= {"mean": facts["target_mean"], "std": facts["target_std"]}
        return arguments

    def _log_arguments(self, log: str) -> dict[str, Any]:
        """Return the arguments with which a task predicts the logarithm of the targets."""
        raise InputError(
            f"targets={log!r} needs the mean of the logarithms, but these data are only read "
            "during training. Pass the task: Learner(data, task=Regression(names, mean, std, "
            f"log={log!r}))."
        )

    def _log_link_arguments(self) -> dict[str, Any]:
        """Return the mean of the train targets, from which a task with a log link starts."""
        mean = self.facts().get("target_mean")
        return {} if mean is None or min(mean) <= 0 else {"mean": mean}

    def _value_names(self, width: int) -> list[str]:
        """Return the names of ``width`` regression targets: those of the user, or "value"."""
        if self._class_names is None:
            return ["value"] if width == 1 else [f"value_{column}" for column in range(width)]
        if len(self._class_names) != width:
            raise InputError(
                f"class_names has {len(self._class_names)} names, but the targets are read as "
                f"amounts (regression) in {width} column{'' if width == 1 else 's'}. Give one name "
                "per column; or, if they are classes, choose task='classification'."
            )
        return list(self._class_names)

    def _ignored_label(self) -> int | None:
        """Return the label of samples that do not count, or None."""
        found = self.facts().get("target_ignored")
        return None if found is None else found["label"]

    def _check_labels(self, classes: Sequence[str]) -> None:
        """Raise ``InputError`` if a label of any part is not a class number."""

    def _check_label_columns(self) -> None:
        """Raise ``InputError`` if the targets of any part are not columns of values in [0, 1]."""

    def _target_shape(self, task: str) -> Sequence[int]:
        targets = self.facts()["targets"]
        if len(targets) != 1:
            raise InputError(
                f"The task {task!r} needs exactly one target, but the data have {len(targets)}"
                f"{': ' if targets else ''}{', '.join(targets)}. Pass a custom task: "
                "Learner(data, module, task=…). If one of them has the weights of the samples, let "
                'the loader yield Batch({"input": x}, {"target": y}, sample_weight=w).'
            )
        return next(iter(targets.values()))["shape"]

    def _classes(self) -> list[str]:
        facts = self.facts()
        if "class_names" in facts:
            return list(facts["class_names"])
        if sizes := facts.get("target_shape"):
            shape = ", ".join(map(str, sizes))
            raise InputError(
                f"The targets have shape (rows, {shape}), but classification needs one class "
                "number per row: (rows,). Select the column (targets[:, 0]), convert one-hot "
                "columns or probabilities with targets.argmax(1), or choose task='multi_label' for "
                "columns of 0 and 1."
            )
        if "target_distinct" in facts and "target_min" in facts and "target_max" in facts:
            raise InputError(
                f"The targets are not class numbers 0, 1, …: they have "
                f"{facts['target_distinct']:,} distinct values of {facts.get('target_dtype')} from "
                f"{facts['target_min']:,} to {facts['target_max']:,}. Number the classes from 0 "
                "(np.unique(targets, return_inverse=True)), or choose task='regression'. If a "
                "negative number marks samples that do not count, pass "
                "Learner(data, task=Classification(names, ignore_index=…))."
            )
        raise InputError(
            "The number of classes is unknown, because only the first batches were read. Give "
            "class_names=[…] or n_classes=…."
        )


def resolve_class_names(
    class_names: Sequence[str] | None, n_classes: int | None
) -> Sequence[str] | None:
    """Return the class names in their order, or "0", "1", … if only the number is given."""
    if class_names is not None:
        from flambeau.data.ordered_names import ordered_names

        class_names = ordered_names(class_names, "class_names")
    if n_classes is None:
        return class_names
    n_classes = checked_count(n_classes, "n_classes", at_least=2)
    if class_names is not None and len(class_names) != n_classes:
        raise InputError(
            f"n_classes is {n_classes}, but class_names has {len(class_names)} names. Give only "
            "one of them."
        )
    return class_names or [str(label) for label in range(n_classes)]


def describe_columns(columns: Mapping[str, Tensor]) -> dict[str, ColumnFacts]:
    """Return ``{name: {"shape": [sizes of one sample], "dtype": "float32"}}``."""
    return {
        name: {"shape": list(value.shape[1:]), "dtype": dtype_name(value.dtype)}
        for name, value in columns.items()
    }


def describe_target(
    target: Tensor, class_names: Sequence[str] | None, weights: Tensor | None = None
) -> dict[str, Any]:
    """Return the ``target_*`` and ``class_*`` facts of train targets ``(n, …)``.

    Args:
        target: The targets.
        class_names: Names of the classes, if they are known.
        weights: Sample weights ``(n,)``.

    Raises:
        InputError: The targets are too large to be standardised.
    """
    facts: dict[str, Any] = {
        "target_dtype": dtype_name(target.dtype),
        "target_shape": list(target.shape[1:]),
    }
    if not target.numel() or target.is_complex():
        return facts
    distinct = distinct_values(target)
    low, high = _number(distinct[0]), _number(distinct[-1])
    facts |= {
        "target_distinct": len(distinct),
        "target_min": low,
        "target_max": high,
        "target_binary": bool(((distinct == 0) | (distinct == 1)).all()),
    }
    if target.ndim <= 2:
        mean, std = mean_and_std(target.reshape(len(target), -1), by_feature=True)
        if not bool(std.isfinite().all()) and bool(target.isfinite().all()):
            raise InputError(
                f"The targets are from {low:g} to {high:g}, too large to be standardised: their "
                "variance is beyond the range of float64. Divide them by a constant."
            )
        facts |= {"target_mean": mean.numpy().tolist(), "target_std": std.numpy().tolist()}
    from flambeau.data.class_labels import marks_ignored

    if marks_ignored(target, None if class_names is None else len(class_names)):
        counted = target != IGNORED
        facts["target_ignored"] = {"label": IGNORED, "rows": int((~counted).sum())}
        target, weights = target[counted], None if weights is None else weights[counted]
        distinct, low = distinct[1:], 0
    if not target.is_floating_point() and target.ndim == 1 and low >= 0:
        # A maximum far above the number of distinct values: identifiers or amounts, not classes.
        if class_names is None and high < 10 * len(distinct) + 10:
            class_names = [str(label) for label in range(int(high) + 1)]
        if class_names is not None and high < len(class_names):
            counts = torch.bincount(target.long(), minlength=len(class_names))
            facts["class_names"] = list(class_names)
            facts["class_counts"] = counts.numpy().tolist()
            if weights is not None:
                sums = torch.bincount(target.long(), weights.double(), len(class_names))
                facts["class_weight_sums"] = sums.numpy().tolist()
    if "class_names" not in facts and class_names is not None:
        facts["class_names"] = list(class_names)
    return facts


def describe_one_hot(target: Tensor, class_names: Sequence[str] | None) -> dict[str, Any]:
    """Return the ``class_*`` facts of one-hot train targets ``(n, classes)``.

    Raises:
        InputError: There are more or fewer class names than columns.
    """
    from flambeau.data.label_rows import column_names

    names = column_names(target.shape[1], class_names)
    counts = target.sum(dim=0).long().numpy().tolist()
    return {"target_one_hot": True, "class_names": list(names), "class_counts": counts}


def distinct_values(values: Tensor) -> Tensor:
    """Return the sorted distinct values (``torch.unique``, which torch does not type)."""
    return cast(Any, torch).unique(values)


def _number(value: Tensor) -> float | int:
    number: float | int = value.item()
    return int(number) if isinstance(number, bool) else number
